/** A config.json that can't be used: an operator's mistake, in one sentence that names file, field, value and what would be right. */
export class HfConfigError extends Error {
  constructor(source: string, problem: string) {
    super(`${source}: ${problem}.`);
    this.name = 'HfConfigError';
  }
}

export type JsonObject = Readonly<Record<string, unknown>>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Enough of a value to recognise it in an error. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/**
 * Checked reads of one JSON object. A field that is absent or null takes the default; without a default it is an error.
 * Every method throws {@link HfConfigError}.
 */
export class ConfigFields {
  constructor(
    readonly raw: JsonObject,
    readonly source: string,
    /** Where the object lies in the file: "rope_scaling.", or "" for the whole. */
    private readonly path = '',
  ) {}

  has(name: string): boolean {
    return this.raw[name] !== undefined && this.raw[name] !== null;
  }

  positiveInt(name: string, fallback?: number): number {
    return this.read(
      name,
      'a positive integer',
      (value) => Number.isSafeInteger(value) && (value as number) > 0,
      fallback,
    );
  }

  nonNegativeInt(name: string, fallback?: number): number {
    return this.read(
      name,
      'an integer of 0 or more',
      (value) => Number.isSafeInteger(value) && (value as number) >= 0,
      fallback,
    );
  }

  positiveNumber(name: string, fallback?: number): number {
    return this.read(name, 'a positive number', (value) => Number.isFinite(value) && (value as number) > 0, fallback);
  }

  positiveNumberOrNull(name: string): number | null {
    return this.has(name) ? this.positiveNumber(name) : null;
  }

  /** A number of 0 or more, where 0 means the same as absent. */
  multiplierOrNull(name: string): number | null {
    const isMultiplier = (value: unknown) => Number.isFinite(value) && (value as number) >= 0;
    return this.read(name, 'a number of 0 or more', isMultiplier, 0) || null;
  }

  boolean(name: string, fallback?: boolean): boolean {
    return this.read(name, 'true or false', (value) => typeof value === 'boolean', fallback);
  }

  string(name: string, fallback?: string): string {
    return this.read(name, 'a string', (value) => typeof value === 'string', fallback);
  }

  strings(name: string, fallback?: string[]): string[] {
    const isStrings = (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === 'string');
    return this.read(name, 'a list of strings', isStrings, fallback);
  }

  positiveNumbersOrNull(name: string): number[] | null {
    if (!this.has(name)) return null;
    const isNumbers = (value: unknown) =>
      Array.isArray(value) && value.every((item) => Number.isFinite(item) && item > 0);
    return this.read<number[]>(name, 'a list of positive numbers', isNumbers);
  }

  nonNegativeInts(name: string, fallback: number[]): number[] {
    const isInts = (value: unknown) =>
      Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
    return this.read<number[]>(name, 'a list of integers of 0 or more', isInts, fallback);
  }

  flagsOrNull(name: string): number[] | null {
    if (!this.has(name)) return null;
    const isFlags = (value: unknown) => Array.isArray(value) && value.every((item) => item === 0 || item === 1);
    return this.read<number[]>(name, 'a list of 0 and 1', isFlags);
  }

  /** A token id, a list of them, or null, as a list. */
  tokenIds(name: string, fallback: number[]): number[] {
    if (!this.has(name)) return fallback;
    const isId = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
    const isIds = (value: unknown) => (Array.isArray(value) ? value.every(isId) : isId(value));
    return [this.read<number | number[]>(name, 'a token id or a list of them', isIds)].flat();
  }

  object(name: string): ConfigFields | null {
    if (!this.has(name)) return null;
    return new ConfigFields(this.read(name, 'an object', isJsonObject), this.source, `${this.path}${name}.`);
  }

  /** An error about one field, to throw. */
  error(name: string, problem: string): HfConfigError {
    return new HfConfigError(this.source, `${this.path}${name} ${problem}`);
  }

  private read<T>(name: string, expected: string, accepts: (value: unknown) => boolean, fallback?: T): T {
    const value = this.raw[name];
    if (value === undefined || value === null) {
      if (fallback !== undefined) return fallback;
      throw this.error(name, `is missing; expected ${expected}`);
    }
    if (!accepts(value)) throw this.error(name, `is ${show(value)}; expected ${expected}`);
    return value as T;
  }
}
