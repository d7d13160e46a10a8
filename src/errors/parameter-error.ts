import { ValidationError } from './validation-error.ts';

/** A number field with a fraction, printed as Python prints a float (2.0, 1e-05, inf), which is how vLLM's messages print it. */
export class PythonFloat {
  constructor(readonly value: number) {}

  toString(): string {
    return pythonFloat(this.value);
  }
}

type Printable = string | number | PythonFloat | readonly (string | number)[];

/**
 * The error of one parameter in vLLM's form: the sentence, then "(parameter=…, value=…)". `parameter` becomes OpenAI's `param`.
 * Without a value only the parameter's name is appended.
 */
export function parameterError(sentence: string, parameter: string, value?: Printable): ValidationError {
  const shown = value === undefined ? '' : `, value=${pythonStr(value)}`;
  const plain = value instanceof PythonFloat ? value.value : value;
  return new ValidationError(`${sentence} (parameter=${parameter}${shown})`, parameter, plain);
}

function pythonStr(value: Printable): string {
  if (Array.isArray(value)) return pythonList(value);
  return typeof value === 'number' ? pythonInt(value) : String(value);
}

/** Digits of an integer of any size: 1e21 is 1000000000000000000000. */
export function pythonInt(value: number): string {
  return Number.isInteger(value) ? BigInt(value).toString() : pythonFloat(value);
}

/** `repr` of a list of integers and strings, at most `MAX_SHOWN` of them: a request may bring a million. */
export function pythonList(values: readonly (string | number)[]): string {
  const shown = values
    .slice(0, MAX_SHOWN)
    .map((value) => (typeof value === 'number' ? pythonInt(value) : pythonQuote(value)));
  if (values.length > MAX_SHOWN) shown.push('...');
  return `[${shown.join(', ')}]`;
}

const MAX_SHOWN = 20;

/** `repr` of a string: single quotes unless only those are in it, control characters escaped. */
export function pythonQuote(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let quoted = quote;
  for (const char of text) quoted += char === quote ? `\\${char}` : escapeChar(char);
  return quoted + quote;
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escapeChar(char: string): string {
  const escaped = ESCAPES[char];
  if (escaped !== undefined) return escaped;
  const code = char.codePointAt(0)!;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code >= 0xd800 && code <= 0xdfff ? `\\u${code.toString(16)}` : char;
}

/** `repr` of a Python float: always with a point or an exponent, the exponent from 1e16 and below 1e-4. */
export function pythonFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const magnitude = Math.abs(value);
  if (magnitude !== 0 && (magnitude < 1e-4 || magnitude >= 1e16)) {
    const [digits, exponent] = value.toExponential().split('e') as [string, string];
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  }
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
