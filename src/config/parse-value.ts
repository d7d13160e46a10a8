import { UsageError } from './config-error.ts';
import type { FlagSpec, JsonFlag, ListFlag, NumberFlag, StringFlag } from './flags/flag.ts';

export type JsonObject = Record<string, unknown>;

const DECIMAL: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12 };
const BINARY: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
const BYTE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  ...withEnding(BINARY, 'iB'),
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/**
 * The value of a flag from one word of text.
 *
 * @param origin how the operator wrote it (`--port`, `BAO_PORT`, `port in server.yaml`), for the error
 * @throws UsageError that says what would be right; a secret's value is not repeated
 */
export function parseText(spec: FlagSpec, text: string, origin: string): unknown {
  switch (spec.type) {
    case 'boolean':
      return parseBoolean(spec, text, origin);
    case 'string':
      return parseString(spec, text, origin);
    case 'list':
      return parseWords(spec, [text]);
    case 'json':
      return parseJsonObject(spec, text, origin);
    default:
      return parseNumber(spec, text, origin);
  }
}

/** The same from a value of a config file, which has types of its own: numbers and booleans may be quoted or not. Throws UsageError. */
export function parseTyped(spec: FlagSpec, value: unknown, origin: string): unknown {
  if (spec.type === 'json' && isJsonObject(value)) return value;
  if (spec.type === 'list' && Array.isArray(value) && value.every(isScalar)) return parseWords(spec, value.map(String));
  if (value === null && spec.default === null) return null;
  if (isScalar(value)) return parseText(spec, String(value), origin);
  throw new UsageError(`${origin} takes ${expected(spec)}, not ${JSON.stringify(value)}.`);
}

/** What a flag takes, for errors and for errors only: help has its own shorter form. */
export function expected(spec: FlagSpec): string {
  switch (spec.type) {
    case 'boolean':
      return 'true or false';
    case 'string':
      return spec.choices ? orList(spec.choices) : 'a text';
    case 'list':
      return 'one or more words';
    case 'json':
      return 'a JSON object';
    default:
      return `${NUMBER_KINDS[spec.type]}${spec.auto ? ' or auto' : ''}${range(spec)}`;
  }
}

const NUMBER_KINDS: Record<NumberFlag['type'], string> = {
  int: 'a whole number',
  float: 'a number',
  tokens: 'a whole number (4096, 32k, 1M)',
  bytes: 'a size (1073741824, 4G, 512MiB)',
};

function range({ min, max }: NumberFlag): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  if (min !== undefined) return ` of at least ${min}`;
  return max === undefined ? '' : ` of at most ${max}`;
}

function wrong(spec: FlagSpec, text: string, origin: string): UsageError {
  return new UsageError(`${origin} takes ${expected(spec)}${spec.secret ? '' : `, not "${text}"`}.`);
}

function parseBoolean(spec: FlagSpec, text: string, origin: string): boolean {
  const word = text.toLowerCase();
  if (word === 'true' || word === '1') return true;
  if (word === 'false' || word === '0') return false;
  throw wrong(spec, text, origin);
}

function parseString(spec: StringFlag, text: string, origin: string): string {
  if (spec.choices === undefined) return text;
  const choice =
    spec.choices.find((known) => known === text) ?? spec.choices.find((known) => known === text.toLowerCase());
  if (choice === undefined) throw wrong(spec, text, origin);
  return choice;
}

function parseNumber(spec: NumberFlag, text: string, origin: string): number {
  const value = spec.auto && text.toLowerCase() === 'auto' ? -1 : readNumber(spec.type, text);
  const inRange = value >= (spec.min ?? -Infinity) && value <= (spec.max ?? Infinity);
  if (!Number.isFinite(value) || !inRange) throw wrong(spec, text, origin);
  if (spec.type !== 'float' && !Number.isSafeInteger(value)) throw wrong(spec, text, origin);
  return value;
}

/** NaN for what is no number of this kind. */
function readNumber(type: NumberFlag['type'], text: string): number {
  const match = /^([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  if (match === null) return Number.NaN;
  const number = Number(match[1]!.replaceAll('_', ''));
  const suffix = match[2]!;
  if (suffix === '') return number;
  const unit = type === 'int' || type === 'float' ? undefined : unitOf(type, suffix);
  // 25.6k is 25,600 though 25.6 * 1000 is a hair less; a binary unit needs no such care.
  return unit === undefined ? Number.NaN : Number((number * unit).toFixed(6));
}

function unitOf(type: 'tokens' | 'bytes', suffix: string): number | undefined {
  return DECIMAL[suffix] ?? BINARY[suffix] ?? (type === 'bytes' ? BYTE_UNITS[suffix] : undefined);
}

/** Words of a list flag; a word that is a JSON array of texts stands for its members. */
export function parseWords(spec: ListFlag, words: readonly string[]): string[] {
  return words.flatMap((word) => {
    const array = word.startsWith('[') ? tryJson(word) : undefined;
    if (Array.isArray(array) && array.every((member) => typeof member === 'string')) return array;
    if (spec.separator === undefined) return [word];
    return word
      .split(spec.separator)
      .map((part) => part.trim())
      .filter((part) => part !== '');
  });
}

function parseJsonObject(spec: JsonFlag, text: string, origin: string): JsonObject {
  const value = tryJson(text);
  if (!isJsonObject(value)) throw wrong(spec, text, origin);
  return value;
}

/** The value behind a dotted flag (`--hf-overrides.rope_theta 1e6`): JSON where it is JSON, else the text itself. */
export function parseMember(text: string): unknown {
  const value = tryJson(text);
  return value === undefined ? text : value;
}

/** A copy of an object with another laid over it; objects are merged at every depth, all else is replaced. */
export function mergeObjects(base: Readonly<JsonObject>, over: Readonly<JsonObject>): JsonObject {
  const merged: JsonObject = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = Object.hasOwn(merged, key) ? merged[key] : undefined;
    const next = isJsonObject(before) && isJsonObject(value) ? mergeObjects(before, value) : value;
    Object.defineProperty(merged, key, { value: next, enumerable: true, writable: true, configurable: true });
  }
  return merged;
}

/**
 * A copy of a JSON flag's object with one member set, as a dotted flag names it (`--hf-overrides.a.b 1`), or appended to a list (`.a.b+`).
 *
 * @throws UsageError for an empty name, or where there is no list to append to
 */
export function withMember(
  base: Readonly<JsonObject>,
  path: readonly string[],
  value: unknown,
  origin: string,
): JsonObject {
  if (path.some((key) => key === '' || key === '+')) throw new UsageError(`${origin} names an empty member.`);
  const last = path.at(-1)!;
  if (!last.endsWith('+')) return mergeObjects(base, nest(path, value));
  const listPath = [...path.slice(0, -1), last.slice(0, -1)];
  const before = listPath.reduce<unknown>((at, key) => (isJsonObject(at) ? at[key] : undefined), base) ?? [];
  if (!Array.isArray(before)) {
    throw new UsageError(`${origin} appends to a list, but ${listPath.join('.')} is none.`);
  }
  return mergeObjects(base, nest(listPath, before.concat(value)));
}

function nest(path: readonly string[], value: unknown): JsonObject {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as JsonObject;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isScalar(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}

/** undefined for what is no JSON, which no JSON text gives. */
function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function orList(words: readonly string[]): string {
  return words.length === 1 ? words[0]! : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

function withEnding(units: Readonly<Record<string, number>>, ending: string): Record<string, number> {
  return Object.fromEntries(Object.entries(units).map(([prefix, factor]) => [`${prefix}${ending}`, factor]));
}
