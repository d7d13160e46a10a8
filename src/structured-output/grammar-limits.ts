import { ValidationError } from '../errors/validation-error.ts';
import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';

/** What is refused before an engine sees it: what is larger than any grammar needs, or too deep for a parser's stack. */

const MAX_GRAMMAR_BYTES = 1 << 20;
/** Brackets within brackets, and prefix operators: each is a call deep in the engine's parser. */
const MAX_NESTING = 250;

/** @throws ValidationError that names what is too much */
export function checkGrammarLimits({ text }: GrammarSpec): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_GRAMMAR_BYTES) {
    throw refusal(`${bytes} bytes are more than the ${MAX_GRAMMAR_BYTES} that a grammar may have`);
  }
  if (text.includes('\0')) throw refusal('it holds a zero byte');
  checkNesting(text);
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

function refusal(what: string): ValidationError {
  return new ValidationError(`Grammar error: ${what}`);
}
