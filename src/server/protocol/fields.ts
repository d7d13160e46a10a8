import * as v from 'valibot';
import { describedAs } from './field-metadata.ts';

/**
 * Field types with pydantic's lax coercions ("5" is an int, 1.0 too, "true" a bool), since vLLM's clients rely on them. A message starts with
 * pydantic's name of the error, which `parseBody` reports as its type.
 */

const INTEGER_TEXT = /^\s*[+-]?\d+(?:\.0*)?\s*$/;
const NUMBER_TEXT = /^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$/;
const TRUE_WORDS = new Set(['1', 'true', 't', 'yes', 'y', 'on']);
const FALSE_WORDS = new Set(['0', 'false', 'f', 'no', 'n', 'off']);

/** Either the value or the message of what is wrong with it. */
type Coerced<T> = { value: T } | { error: string };

function coercing<T>(jsonSchema: Readonly<Record<string, unknown>>, coerce: (input: unknown) => Coerced<T>) {
  return v.pipe(
    v.unknown(),
    describedAs<unknown>(jsonSchema),
    v.rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      const coerced = coerce(dataset.value);
      if ('value' in coerced) return coerced.value;
      addIssue({ message: coerced.error });
      return NEVER;
    }),
  );
}

function toInteger(input: unknown): Coerced<number> {
  if (typeof input === 'boolean') return { value: Number(input) };
  if (typeof input === 'string') {
    if (INTEGER_TEXT.test(input)) return { value: Number(input) };
    return { error: 'int_parsing: Input should be a valid integer, unable to parse string as an integer' };
  }
  if (typeof input !== 'number') return { error: 'int_type: Input should be a valid integer' };
  if (!Number.isFinite(input)) return { error: 'finite_number: Input should be a finite number' };
  if (Number.isInteger(input)) return { value: input };
  return { error: 'int_from_float: Input should be a valid integer, got a number with a fractional part' };
}

function toNumber(input: unknown): Coerced<number> {
  if (typeof input === 'number') return { value: input };
  if (typeof input === 'boolean') return { value: Number(input) };
  if (typeof input !== 'string') return { error: 'float_type: Input should be a valid number' };
  if (NUMBER_TEXT.test(input)) return { value: Number(input) };
  return { error: 'float_parsing: Input should be a valid number, unable to parse string as a number' };
}

function toBoolean(input: unknown): Coerced<boolean> {
  if (typeof input === 'boolean') return { value: input };
  if (input === 0 || input === 1) return { value: input === 1 };
  if (typeof input === 'string') {
    const word = input.toLowerCase();
    if (TRUE_WORDS.has(word)) return { value: true };
    if (FALSE_WORDS.has(word)) return { value: false };
  }
  if (typeof input === 'string' || typeof input === 'number') {
    return { error: 'bool_parsing: Input should be a valid boolean, unable to interpret input' };
  }
  return { error: 'bool_type: Input should be a valid boolean' };
}

export const integer = coercing({ type: 'integer' }, toInteger);
export const number = coercing({ type: 'number' }, toNumber);
export const boolean = coercing({ type: 'boolean' }, toBoolean);
export const string = v.string('string_type: Input should be a valid string');
export const anyObject = coercing<Record<string, unknown>>({ type: 'object' }, (input) =>
  isObject(input) ? { value: input } : { error: 'dict_type: Input should be a valid dictionary' },
);

export function isObject(input: unknown): input is Record<string, unknown> {
  return typeof input === 'object' && input !== null && !Array.isArray(input);
}

/** An integer of at least `min` and at most `max`. */
export function integerBetween(min: number, max = Number.POSITIVE_INFINITY) {
  const limits = { minimum: min, ...(max === Number.POSITIVE_INFINITY ? {} : { maximum: max }) };
  return coercing<number>({ type: 'integer', ...limits }, (input) => {
    const coerced = toInteger(input);
    if ('error' in coerced) return coerced;
    if (coerced.value < min) {
      return { error: `greater_than_equal: Input should be greater than or equal to ${String(min)}` };
    }
    if (coerced.value > max) return { error: `less_than_equal: Input should be less than or equal to ${String(max)}` };
    return coerced;
  });
}

const INT64_MAX = 2 ** 63;
export const int64 = integerBetween(-INT64_MAX, INT64_MAX);

export function list<Item extends v.GenericSchema>(item: Item) {
  return v.array(item, 'list_type: Input should be a valid list');
}

/** One of some words. */
export function literal<const Words extends readonly [string, ...string[]]>(...words: Words) {
  const quoted = words.map((word) => `'${word}'`);
  const last = quoted.at(-1)!;
  const choices = quoted.length === 1 ? last : `${quoted.slice(0, -1).join(', ')} or ${last}`;
  return v.picklist(words, `literal_error: Input should be ${choices}`);
}

/** A string or a list of strings. */
export const stringOrStrings = coercing<string | string[]>(
  { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }] },
  (input) => {
    if (typeof input === 'string') return { value: input };
    if (!Array.isArray(input)) return { error: 'string_type: Input should be a valid string' };
    if (input.every((item) => typeof item === 'string')) return { value: input };
    return { error: 'list_type: Input should be a valid list of strings' };
  },
);

/** A list whose every item is an integer, checked without an issue per item: prompts have a hundred thousand of them. */
export const integers = coercing<number[]>({ type: 'array', items: { type: 'integer' } }, (input) => {
  if (!Array.isArray(input)) return { error: 'list_type: Input should be a valid list' };
  if (input.every(Number.isInteger)) return { value: input };
  const values: number[] = [];
  for (let i = 0; i < input.length; i++) {
    const coerced = toInteger(input[i]);
    if ('error' in coerced) return { error: `${coerced.error} (item ${i})` };
    values.push(coerced.value);
  }
  return { value: values };
});

/** Object of numbers: `{"50256": -100}`. */
export const numberMap = coercing<Record<string, number>>(
  { type: 'object', additionalProperties: { type: 'number' } },
  (input) => {
    if (!isObject(input)) return { error: 'dict_type: Input should be a valid dictionary' };
    const values: Record<string, number> = {};
    for (const [key, item] of Object.entries(input)) {
      const coerced = toNumber(item);
      if ('error' in coerced) return { error: `${coerced.error} (key ${key.slice(0, 40)})` };
      values[key] = coerced.value;
    }
    return { value: values };
  },
);
