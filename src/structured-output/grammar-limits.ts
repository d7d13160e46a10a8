import { ValidationError } from '../errors/validation-error.ts';
import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';

/**
 * What is refused before an engine sees it. llguidance limits its own work by "fuel", but not everywhere: a number's remainders, and what an
 * intersection of many expressions multiplies out to, take time and memory without bound, and a compile can't be interrupted.
 */

const MAX_GRAMMAR_BYTES = 1 << 20;
/** Brackets within brackets, and prefix operators: each is a call deep in the engine's parser. */
const MAX_NESTING = 250;
/** The lexer has a state for each remainder: 100,000 take a second. */
const MAX_REMAINDERS = 100_000;
/** Regular expressions that must hold at once: 8 take 0.05 s, 12 take 1.5 s, 20 never end. */
const MAX_INTERSECTED = 8;

const MULTIPLE_OF = /"multipleOf"\s*:\s*([-+.\deE]+)/g;
const PATTERN = /"pattern"\s*:\s*("(?:[^"\\]|\\.)*")/g;
/** Texts and regular expressions of a Lark grammar; neither spans lines. */
const LARK_LITERAL = /"(?:[^"\\\n]|\\.)*"|\/(?:[^/\\\n]|\\.)*\//g;
const UNICODE_ESCAPE = /\\u([\da-fA-F]{4})/g;

/** @throws ValidationError that names what is too much */
export function checkGrammarLimits({ kind, text }: GrammarSpec): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_GRAMMAR_BYTES) {
    throw refusal(`${bytes} bytes are more than the ${MAX_GRAMMAR_BYTES} that a grammar may have`);
  }
  if (text.includes('\0')) throw refusal('it holds a zero byte');
  checkNesting(text);
  if (kind === 'regex') return;
  // Schemas may be within a Lark grammar, and escapes within their keys.
  const plain = text.replace(UNICODE_ESCAPE, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
  checkMultiples(plain);
  checkIntersections(kind, text);
}

function checkNesting(text: string): void {
  let depth = 0;
  let negations = 0;
  for (const char of text) {
    if (char === '(' || char === '[' || char === '{') depth++;
    else if ((char === ')' || char === ']' || char === '}') && depth > 0) depth--;
    else if (char === '~') negations++;
    if (depth + negations > MAX_NESTING) throw refusal(`it nests more than ${MAX_NESTING} levels deep`);
  }
}

/** Numbers that must be multiples of several divisors have a state for each remainder by their least common multiple. */
function checkMultiples(text: string): void {
  let common = 1;
  for (const [, number] of text.matchAll(MULTIPLE_OF)) {
    const divisor = coefficient(Number(number));
    if (Number.isNaN(divisor)) continue;
    common *= divisor / greatestCommonDivisor(common, divisor);
    if (common > MAX_REMAINDERS) throw refusal(`multipleOf ${number} is too large for what a grammar can check`);
  }
}

function checkIntersections(kind: GrammarSpec['kind'], text: string): void {
  if (text.includes('"allOf"')) {
    const patterns = new Set(Array.from(text.matchAll(PATTERN), ([, pattern]) => pattern));
    if (patterns.size > MAX_INTERSECTED) {
      throw refusal(
        `a schema with allOf may have ${MAX_INTERSECTED} different values of pattern, not ${patterns.size}`,
      );
    }
  }
  const numIntersected = kind === 'lark' ? text.replace(LARK_LITERAL, '').split('&').length : 1;
  if (numIntersected > MAX_INTERSECTED)
    throw refusal(`it intersects more than ${MAX_INTERSECTED} expressions with "&"`);
}

/** The whole number that a decimal is without its point: 25 of 0.025, 1000 of 1000. At least 1. */
function coefficient(value: number): number {
  if (Number.isInteger(value)) return Math.max(Math.abs(value), 1);
  return Number(value.toExponential().replace(/e.*$/, '').replace(/\D/g, ''));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function refusal(what: string): ValidationError {
  return new ValidationError(`Grammar error: ${what}`);
}
