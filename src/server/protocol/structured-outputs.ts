import { ValidationError } from '../../errors/validation-error.ts';
import { checkGrammarLimits } from '../../structured-output/grammar-limits.ts';
import type { Constraint, StructuralTag } from '../../structured-output/grammar-spec.ts';
import type { StructuredOutputsRequest } from '../../structured-output/structured-outputs.ts';
import { notSupported } from '../errors.ts';
import { isObject } from './fields.ts';
import type { GenerationFields } from './generation-fields.ts';
import { wrongValue } from './wrong-value.ts';

type Json = Record<string, unknown>;

/**
 * What `response_format` and `structured_outputs` ask for together; null when neither asks for anything.
 *
 * @throws ValidationError that names the field at fault
 */
export function structuredOutputsOf(request: GenerationFields): StructuredOutputsRequest | null {
  const format = request.response_format ?? null;
  const fields = request.structured_outputs ?? null;
  const constraints = [...(fields === null ? [] : fieldConstraints(fields)), ...formatConstraints(format)];
  if (constraints.length > 1) {
    throw new ValidationError(
      'You can only use one kind of structured outputs constraint but multiple are specified.',
      'structured_outputs',
    );
  }
  const constraint = constraints[0];
  if (constraint === undefined) {
    if (fields !== null) {
      throw new ValidationError(
        'You must use one kind of structured outputs constraint but none are specified.',
        'structured_outputs',
      );
    }
    return null;
  }
  return {
    constraint,
    strict: isObject(format?.json_schema) && format.json_schema.strict === true,
    options: {
      disableAnyWhitespace: optional(fields, 'disable_any_whitespace', isBoolean, 'a boolean') ?? false,
      disableAdditionalProperties: optional(fields, 'disable_additional_properties', isBoolean, 'a boolean') ?? false,
      whitespacePattern: optional(fields, 'whitespace_pattern', isString, 'a string'),
    },
  };
}

function formatConstraints(format: Json | null): Constraint[] {
  if (format === null) return [];
  switch (format.type) {
    case 'text':
      return [];
    case 'json_object':
      return [{ kind: 'json_object' }];
    case 'json_schema':
      return [schemaOfFormat(format.json_schema)];
    case 'structural_tag':
      return [{ kind: 'structural_tag', tags: structuralTags(format, 'response_format') }];
    default:
      throw wrongValue('response_format.type', 'one of text, json_object, json_schema and structural_tag', format.type);
  }
}

function schemaOfFormat(given: unknown): Constraint {
  if (!isObject(given)) throw wrongValue('response_format.json_schema', 'an object with a schema', given);
  const { schema } = given;
  if (schema == null) throw wrongValue('response_format.json_schema.schema', 'a JSON schema', schema);
  return { kind: 'json', schema };
}

function fieldConstraints(fields: Json): Constraint[] {
  const constraints: Constraint[] = [];
  if (fields.json != null) constraints.push({ kind: 'json', schema: schemaOfField(fields.json) });
  const pattern = optional(fields, 'regex', isString, 'a string');
  if (pattern !== null) constraints.push({ kind: 'regex', pattern });
  const choices = optional(fields, 'choice', isChoices, 'a list of strings, at least one');
  if (choices !== null) constraints.push({ kind: 'choice', choices });
  const grammar = optional(fields, 'grammar', isString, 'a string');
  if (grammar !== null) {
    constraints.push(grammar.includes('::=') ? { kind: 'ebnf', ebnf: grammar } : { kind: 'grammar', lark: grammar });
  }
  if (optional(fields, 'json_object', isBoolean, 'a boolean') === true) constraints.push({ kind: 'json_object' });
  const tag = optional(fields, 'structural_tag', isString, 'a JSON text');
  if (tag !== null) {
    const parsed = parseJson(tag, 'structured_outputs.structural_tag');
    if (!isObject(parsed)) throw wrongValue('structured_outputs.structural_tag', 'the JSON text of an object', tag);
    constraints.push({ kind: 'structural_tag', tags: structuralTags(parsed, 'structured_outputs.structural_tag') });
  }
  return constraints;
}

/** A schema may come as JSON text. */
function schemaOfField(given: unknown): unknown {
  return typeof given === 'string' ? parseJson(given, 'structured_outputs.json') : given;
}

/**
 * `{structures: [{begin, schema, end}], triggers: […]}`: each structure starts with a trigger. Or the newer form of the same,
 * `{format: {type: "triggered_tags", triggers: […], tags: [{begin, content: {type: "json_schema", json_schema}, end}]}}`.
 */
function structuralTags(given: Json, field: string): StructuralTag[] {
  if (given.format != null) return structuralTags(triggeredTags(given.format, `${field}.format`), field);
  const { structures, triggers } = given;
  if (!isChoices(triggers) || triggers.includes('')) throw wrongValue(`${field}.triggers`, 'a list of texts', triggers);
  if (!Array.isArray(structures) || structures.length === 0) {
    throw wrongValue(`${field}.structures`, 'a list of structures', structures);
  }
  return structures.map((structure: unknown, i) => {
    const at = `${field}.structures[${i}]`;
    if (!isObject(structure)) throw wrongValue(at, 'an object with begin, schema and end', structure);
    const { begin, end } = structure;
    const schema = structure.schema ?? structure.structural_tag_schema ?? {};
    if (typeof begin !== 'string') throw wrongValue(`${at}.begin`, 'a text', begin);
    if (typeof end !== 'string') throw wrongValue(`${at}.end`, 'a text', end);
    const trigger = triggers.find((each) => begin.startsWith(each));
    if (trigger === undefined) throw wrongValue(`${at}.begin`, 'a text that starts with a trigger', begin);
    return { trigger, begin, schema, end };
  });
}

/** The older form of the newer one. */
function triggeredTags(format: unknown, field: string): Json {
  if (!isObject(format)) throw wrongValue(field, 'an object', format);
  if (format.type !== 'triggered_tags') throw notSupported(`${field}.type`, 'only triggered_tags is');
  for (const name of ['at_least_one', 'stop_after_first']) {
    if (format[name] === true) throw notSupported(`${field}.${name}`);
  }
  if (!Array.isArray(format.tags)) throw wrongValue(`${field}.tags`, 'a list of tags', format.tags);
  const structures = format.tags.map((tag: unknown, i) => {
    if (!isObject(tag) || !isObject(tag.content))
      throw wrongValue(`${field}.tags[${i}]`, 'an object with content', tag);
    const { type, json_schema: schema } = tag.content;
    if (type !== 'json_schema') throw notSupported(`${field}.tags[${i}].content.type`, 'only json_schema is');
    return { begin: tag.begin, schema, end: tag.end };
  });
  return { structures, triggers: format.triggers };
}

function parseJson(text: string, field: string): unknown {
  // What is nested without bound can't be walked through.
  checkGrammarLimits({ kind: 'json_schema', text });
  try {
    return JSON.parse(text);
  } catch {
    throw wrongValue(field, 'JSON', text);
  }
}

function optional<T>(
  fields: Json | null,
  name: string,
  is: (value: unknown) => value is T,
  expected: string,
): T | null {
  const value = fields?.[name] ?? null;
  if (value === null) return null;
  if (!is(value)) throw wrongValue(`structured_outputs.${name}`, expected, value);
  return value;
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean';
const isChoices = (value: unknown): value is string[] =>
  Array.isArray(value) && value.length > 0 && value.every(isString);
