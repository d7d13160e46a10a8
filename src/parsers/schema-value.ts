import { isJson, parsedJson } from './json-value-scanner.ts';
import { wordToJson } from './literal-reader.ts';

/**
 * The types that a JSON schema allows, those of its branches and of its `enum` among them; text where it says nothing, as in vLLM. What a `$ref`
 * points to is taken for an object.
 */
export function schemaTypes(schema: unknown): ReadonlySet<string> {
  const types = new Set<string>();
  addTypes(schema, types);
  return types;
}

function addTypes(schema: unknown, types: Set<string>): void {
  const fields = typeof schema === 'object' && schema !== null ? (schema as Record<string, unknown>) : {};
  const before = types.size;
  for (const type of asList(fields.type)) if (typeof type === 'string') types.add(type);
  for (const value of asList(fields.enum)) types.add(typeOf(value));
  for (const keyword of ['anyOf', 'oneOf', 'allOf']) {
    for (const branch of asList(fields[keyword])) addTypes(branch, types);
  }
  if ('$ref' in fields) types.add('object');
  const saysNothing = !['type', 'enum', 'anyOf', 'oneOf', 'allOf', '$ref'].some((keyword) => keyword in fields);
  if (types.size === before && saysNothing) types.add('string');
}

function asList(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  return value === undefined ? [] : [value];
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}

const BOOLEANS: Readonly<Record<string, string>> = { true: 'true', 1: 'true', false: 'false', 0: 'false' };
const SIMPLE_TYPES = new Set(['null', 'integer', 'number', 'boolean', 'string']);

/** JSON of a value that is written as plain text: the first of its types that it can be of, in vLLM's order, and text if there is none. */
export function valueToJson(text: string, types: ReadonlySet<string>): string {
  const word = text.trim();
  const lower = word.toLowerCase();
  if (types.has('null') && lower === 'null') return 'null';
  if (types.has('integer') && /^[+-]?\d+$/.test(word)) return parsedJson(word) === undefined ? `${BigInt(word)}` : word;
  if (types.has('number') && /^[+-]?[\d.]/.test(word)) {
    const number = wordToJson(word);
    if (number !== null && Number.isFinite(Number(number))) return number;
  }
  if (types.has('boolean') && Object.hasOwn(BOOLEANS, lower)) return BOOLEANS[lower]!;
  const mayBeJson = [...types].some((type) => !SIMPLE_TYPES.has(type));
  return mayBeJson && isJson(word) ? word : JSON.stringify(text);
}
