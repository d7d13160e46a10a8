const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Whether a character code is JSON's white space. */
export function isJsonSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

/**
 * Finds the end of one JSON value in text that comes in pieces. It looks at brackets and strings only, so that a value that is not quite JSON
 * ends where it seems to.
 */
export class JsonValueScanner {
  /** The value has ended. */
  isDone = false;
  #depth = 0;
  #inString = false;
  #isEscaped = false;
  #isScalar = false;

  /** @returns the index behind the last character that belongs to the value */
  scan(text: string, from: number): number {
    for (let i = from; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (this.#inString) {
        if (this.#scanString(code)) return i + 1;
      } else if (this.#isScalar) {
        if (!endsScalar(code)) continue;
        this.isDone = true;
        return i;
      } else if (this.#scanStructure(code)) return i + 1;
    }
    return text.length;
  }

  #scanString(code: number): boolean {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (code === BACKSLASH) this.#isEscaped = true;
    else if (code === QUOTE) {
      this.#inString = false;
      this.isDone = this.#depth === 0;
    }
    return this.isDone;
  }

  #scanStructure(code: number): boolean {
    if (code === QUOTE) this.#inString = true;
    else if (isOpening(code)) this.#depth++;
    else if (isClosing(code)) {
      this.#depth--;
      this.isDone = this.#depth <= 0;
    } else if (this.#depth === 0) this.#isScalar = true;
    return this.isDone;
  }
}

/** [ or { */
function isOpening(code: number): boolean {
  return code === 0x5b || code === 0x7b;
}

/** ] or } */
function isClosing(code: number): boolean {
  return code === 0x5d || code === 0x7d;
}

/** A comma, a closing bracket or white space. */
function endsScalar(code: number): boolean {
  return code === 0x2c || isClosing(code) || isJsonSpace(code);
}

/** Whether a text is one JSON value. */
export function isJson(text: string): boolean {
  return parsedJson(text) !== undefined;
}

/** The value of a JSON text; undefined for what is none. */
export function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
