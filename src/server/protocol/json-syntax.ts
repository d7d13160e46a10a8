/** What is wrong with a JSON text, in the words and at the position of Python's decoder, which vLLM's clients know. */
export interface JsonSyntaxError {
  message: string;
  /** Index into the text. */
  position: number;
}

type Expectation = 'value' | 'first-item' | 'first-key' | 'key' | 'after-item' | 'after-member';

const WHITESPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/y;
const LITERAL = /true|false|null/y;

/** The first error of a text that JSON.parse has refused. Iterative, so nesting of any depth is safe. */
export function findJsonSyntaxError(text: string): JsonSyntaxError {
  return new JsonScanner(text).scan();
}

class JsonScanner {
  #at = 0;
  /** Open brackets, innermost last. */
  readonly #open: ('{' | '[')[] = [];

  constructor(private readonly text: string) {}

  scan(): JsonSyntaxError {
    let expected: Expectation | 'end' = 'value';
    while (expected !== 'end') {
      this.#skip(WHITESPACE);
      const step: Expectation | 'end' | JsonSyntaxError = this.#step(expected);
      if (typeof step === 'object') return step;
      expected = step;
    }
    this.#skip(WHITESPACE);
    return { message: 'Extra data', position: this.#at };
  }

  #step(expected: Expectation): Expectation | 'end' | JsonSyntaxError {
    const char = this.text[this.#at];
    switch (expected) {
      case 'first-item':
        return char === ']' ? this.#close() : this.#value();
      case 'value':
        return this.#value();
      case 'first-key':
        return char === '}' ? this.#close() : this.#key();
      case 'key':
        return this.#key();
      case 'after-item':
        return this.#separator(']', 'value');
      case 'after-member':
        return this.#separator('}', 'key');
    }
  }

  #value(): Expectation | 'end' | JsonSyntaxError {
    const char = this.text[this.#at];
    if (char === '{' || char === '[') {
      this.#open.push(char);
      this.#at++;
      return char === '{' ? 'first-key' : 'first-item';
    }
    if (char === '"') return this.#string() ?? this.#afterValue();
    if (this.#skip(LITERAL) || this.#skip(NUMBER)) return this.#afterValue();
    return this.#error('Expecting value');
  }

  #key(): Expectation | JsonSyntaxError {
    if (this.text[this.#at] !== '"') return this.#error('Expecting property name enclosed in double quotes');
    const error = this.#string();
    if (error !== null) return error;
    this.#skip(WHITESPACE);
    if (this.text[this.#at] !== ':') return this.#error("Expecting ':' delimiter");
    this.#at++;
    return 'value';
  }

  #separator(closing: '}' | ']', next: Expectation): Expectation | 'end' | JsonSyntaxError {
    const char = this.text[this.#at];
    if (char === closing) return this.#close();
    if (char !== ',') return this.#error("Expecting ',' delimiter");
    const comma = this.#at++;
    this.#skip(WHITESPACE);
    if (this.text[this.#at] !== closing) return next;
    return { message: `Illegal trailing comma before end of ${closing === '}' ? 'object' : 'array'}`, position: comma };
  }

  #close(): Expectation | 'end' {
    this.#at++;
    this.#open.pop();
    return this.#afterValue();
  }

  #afterValue(): Expectation | 'end' {
    const container = this.#open.at(-1);
    if (container === undefined) return 'end';
    return container === '{' ? 'after-member' : 'after-item';
  }

  /** Moves behind the string that starts here. */
  #string(): JsonSyntaxError | null {
    const start = this.#at++;
    for (; this.#at < this.text.length; this.#at++) {
      const char = this.text[this.#at]!;
      if (char === '"') {
        this.#at++;
        return null;
      }
      if (char < ' ') return this.#error('Invalid control character at');
      if (char === '\\') {
        const error = this.#escape();
        if (error !== null) return error;
      }
    }
    return { message: 'Unterminated string starting at', position: start };
  }

  #escape(): JsonSyntaxError | null {
    const backslash = this.#at++;
    const char = this.text[this.#at];
    if (char === 'u') {
      if (!/^[0-9a-fA-F]{4}$/.test(this.text.slice(this.#at + 1, this.#at + 5))) {
        return { message: 'Invalid \\uXXXX escape', position: this.#at };
      }
      this.#at += 4;
      return null;
    }
    if (char === undefined || '"\\/bfnrt'.includes(char)) return null;
    return { message: 'Invalid \\escape', position: backslash };
  }

  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text);
    if (match === null) return false;
    this.#at = pattern.lastIndex;
    return true;
  }

  #error(message: string): JsonSyntaxError {
    return { message, position: this.#at };
  }
}
