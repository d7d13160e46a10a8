import { ValidationError } from '../../errors/validation-error.ts';
import { checkGrammarLimits } from '../../structured-output/grammar-limits.ts';
import type { Constraint } from '../../structured-output/grammar-spec.ts';
import type { StructuredOutputsRequest } from '../../structured-output/structured-outputs.ts';
import { isObject } from './fields.ts';
import type { GenerationFields } from './generation-fields.ts';
import { structuralTag } from './structural-tag.ts';
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
      return [structuralTag(format, 'response_format')];
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
    constraints.push(structuralTag(parsed, 'structured_outputs.structural_tag'));
  }
  return constraints;
}

/** A schema may come as JSON text. */
function schemaOfField(given: unknown): unknown {
  return typeof given === 'string' ? parseJson(given, 'structured_outputs.json') : given;
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
