import * as v from 'valibot';
import { logger } from '../../logging/logger.ts';
import { type BodyIssue, bodyError } from './body-error.ts';
import { isObject } from './fields.ts';
import { fieldsAtHand } from './fields-at-hand.ts';

const log = logger('server');

/** Of names that a client chose, in a line of the log. */
const MAX_NAMES = 10;
const MAX_NAME_LENGTH = 50;
/** Values of a body in which every finding is looked for; of a larger one, which could have millions, the first is told alone. */
const MAX_SEARCHED = 10_000;

/**
 * A body checked against an endpoint's schema; fields that the schema doesn't have are ignored, as in vLLM, and named in the log at debug level.
 *
 * @throws ApiError 400 with pydantic's wording for each finding
 */
export function parseBody<const Schema extends v.GenericSchema>(schema: Schema, body: unknown): v.InferOutput<Schema> {
  const output = parsePart(schema, body);
  logIgnored(schema, body as Record<string, unknown>);
  return output;
}

/** The same by a schema of some of the endpoint's fields: others are somebody else's. */
export function parsePart<const Schema extends v.GenericSchema>(schema: Schema, body: unknown): v.InferOutput<Schema> {
  if (!isObject(body)) {
    throw bodyError([
      {
        type: 'model_attributes_type',
        loc: 'body',
        msg: 'Input should be a valid dictionary or object to extract fields from',
        input: body,
      },
    ]);
  }
  return parseFields(fieldsAtHand(schema, body), body, 'body');
}

/** Only names: what a field holds may be a secret. */
function logIgnored(schema: v.GenericSchema, body: Readonly<Record<string, unknown>>): void {
  if (!('entries' in schema) || !isObject(schema.entries)) return;
  const { entries } = schema;
  const ignored: string[] = [];
  for (const name of Object.keys(body)) if (!Object.hasOwn(entries, name)) ignored.push(name);
  if (ignored.length === 0) return;
  const names = ignored.slice(0, MAX_NAMES).map((name) => name.slice(0, MAX_NAME_LENGTH));
  log.debug(`Fields that this endpoint does not know are ignored: ${names.join(', ')}`);
}

/**
 * The parameters of a URL checked against a schema, in the same way. A parameter that may come several times is given as its list.
 *
 * @throws ApiError 400
 */
export function parseQuery<const Schema extends v.GenericSchema>(
  schema: Schema,
  query: Readonly<Record<string, string | string[] | undefined>>,
): v.InferOutput<Schema> {
  return parseFields(schema, query, 'query');
}

function parseFields<const Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
  where: 'body' | 'query',
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, input, { abortEarly: true });
  if (result.success) return result.output;
  const all = hasMoreThan(MAX_SEARCHED, input) ? result : v.safeParse(schema, input);
  throw bodyError((all.issues ?? result.issues).map((issue) => toBodyIssue(issue, where)));
}

function hasMoreThan(limit: number, input: unknown): boolean {
  let numValues = 0;
  const visit = (value: unknown): boolean => {
    if (++numValues > limit) return true;
    if (typeof value !== 'object' || value === null) return false;
    // Object.values of a list of millions takes seconds.
    return (Array.isArray(value) ? value : Object.values(value)).some(visit);
  };
  return visit(input);
}

function toBodyIssue(issue: v.BaseIssue<unknown>, where: string): BodyIssue {
  const path = issue.path ?? [];
  const loc = [where, ...path.map((item) => String(item.key))].join('.');
  const last = path.at(-1);
  // valibot reports a key that is not there as an object issue whose received type is undefined; the input is then the object itself.
  if (last !== undefined && issue.kind === 'schema' && issue.received === 'undefined') {
    return { type: 'missing', loc, msg: 'Field required', input: last.type === 'object' ? last.input : issue.input };
  }
  const [type, msg] = splitMessage(issue.message);
  return { type, loc, msg, input: issue.input };
}

/** The schemas' messages open with the error's type (fields.ts); valibot's own don't. */
function splitMessage(message: string): [type: string, msg: string] {
  const match = /^(\w+): (.*)$/s.exec(message);
  return match === null ? ['value_error', message] : [match[1]!, match[2]!];
}
