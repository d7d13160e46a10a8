import { toJsonSchema } from '@valibot/to-json-schema';
import type { RouterRoute } from 'hono/types';
import type * as v from 'valibot';
import { jsonSchemaOf } from '../protocol/field-metadata.ts';
import { type AnswerType, descriptionOf, type RouteDescription } from './describe-route.ts';

type Json = Record<string, unknown>;

export interface OpenApiOptions {
  version: string;
  /** `--root-path` */
  rootPath: string | null;
  /** Whether requests need a key. */
  hasKeys: boolean;
}

/** The description of all routes, OpenAPI 3.1. Routes without a description of their own (those of plugins) have path and method. */
export function openApiDocument(routes: readonly RouterRoute[], options: OpenApiOptions): Json {
  const schemas: Json = { ErrorResponse: ERROR_SCHEMA };
  const paths: Record<string, Json> = {};
  for (const { path, method, handler } of routes) {
    if (method === 'ALL') continue;
    const key = path.replace(/:(\w+)(\{[^}]*\})?/g, '{$1}');
    paths[key] ??= {};
    const operation = method.toLowerCase();
    const description = descriptionOf(handler);
    if (description !== undefined || paths[key][operation] === undefined) {
      paths[key][operation] = describe(key, description, schemas);
    }
  }
  const securitySchemes = { ApiKey: { type: 'http', scheme: 'bearer' } };
  return {
    openapi: '3.1.0',
    info: { title: 'Bao', version: options.version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    servers: [{ url: options.rootPath ?? '/' }],
    paths,
    components: { schemas, ...(options.hasKeys ? { securitySchemes } : {}) },
    ...(options.hasKeys ? { security: [{ ApiKey: [] }] } : {}),
  };
}

function describe(path: string, description: RouteDescription | undefined, schemas: Json): Json {
  const { summary, body, query, answers = ['application/json'] } = description ?? {};
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: 'path',
      required: true,
      schema: { type: 'string' },
    })),
    ...queryParameters(query),
  ];
  return {
    ...(summary === undefined ? {} : { summary }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: requestBody(body, schemas) }),
    responses: {
      200: { description: 'The answer', ...answerContent(answers) },
      default: {
        description: 'What went wrong',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/ErrorResponse' } } },
      },
    },
  };
}

function requestBody(body: NonNullable<RouteDescription['body']>, schemas: Json): Json {
  const references = Object.entries(body).map(([name, schema]) => {
    schemas[name] ??= toSchema(schema);
    return { $ref: `#/components/schemas/${name}` };
  });
  const schema = references.length === 1 ? references[0] : { anyOf: references };
  return { required: true, content: { 'application/json': { schema } } };
}

function queryParameters(query: RouteDescription['query']): Json[] {
  return Object.entries(query?.entries ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema: toSchema(schema as v.GenericSchema),
  }));
}

function answerContent(answers: readonly AnswerType[]): Json {
  const types = answers.filter((type) => type !== 'nothing');
  if (types.length === 0) return {};
  const content = types.map((type) => [type, { schema: { type: type === 'application/json' ? 'object' : 'string' } }]);
  return { content: Object.fromEntries(content) };
}

function toSchema(schema: v.GenericSchema): Json {
  const { $schema: _dialect, ...converted } = toJsonSchema(schema, {
    target: 'draft-2020-12',
    typeMode: 'input',
    // Checks between fields have no words in JSON Schema.
    ignoreActions: ['check'],
    overrideAction: ({ valibotAction, jsonSchema }) => {
      const more = jsonSchemaOf(valibotAction);
      if (more === null) return undefined;
      // The converter has put the metadata into the schema as it is.
      const { jsonSchema: _metadata, ...kept } = jsonSchema as Json;
      return { ...kept, ...more };
    },
  });
  return converted;
}

const ERROR_SCHEMA = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: {
        message: { type: 'string' },
        type: { type: 'string' },
        param: { type: ['string', 'null'] },
        code: { type: 'integer' },
      },
    },
  },
};
