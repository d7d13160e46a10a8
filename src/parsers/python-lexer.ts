import type { LiteralReader } from './literal-reader.ts';

const SIMPLE_ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '\\': '\\',
  "'": "'",
  '"': '"',
  '\n': '',
};

/** Digits behind `\x`, `\u` and `\U`. */
const HEX_ESCAPES: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

/**
 * Cuts Python literals, which come in pieces, into the tokens of a LiteralReader: strings of both kinds, short and long, raw ones too, brackets and words.
 * Strings that follow each other are one.
 */
export class PythonLexer {
  #state: 'between' | 'word' | 'opening' | 'string' | 'behind-string' = 'between';
  #word = '';
  #quote = '';
  /** The string has three quotes on each side. */
  #isLong = false;
  /** Backslashes in it stand for themselves. */
  #isRaw = false;
  /** It goes on with the one before it. */
  #isContinued = false;
  /** Quotes seen in a row. */
  #numQuotes = 0;
  /** From a backslash on; '' outside of an escape. */
  #escape = '';

  constructor(private readonly reader: LiteralReader) {}

  /** @returns the index behind the last character read; less than the length when the reader is done or has failed */
  push(text: string, from: number): number {
    let i = from;
    while (i < text.length && !this.reader.isDone && !this.reader.isMalformed) {
      if (this.#state === 'string' && this.#escape === '' && this.#numQuotes === 0) i = this.#readPlain(text, i);
      else if (this.#next(text[i]!)) i++;
    }
    return i;
  }

  /** A stretch of a string without quotes and backslashes. */
  #readPlain(text: string, from: number): number {
    let end = from;
    while (end < text.length && text[end] !== this.#quote && text[end] !== '\\') end++;
    if (end > from) this.reader.stringPiece(text.slice(from, end));
    if (end < text.length && this.#next(text[end]!)) end++;
    return end;
  }

  /** @returns whether the character was read; if not, it is for the state that follows */
  #next(character: string): boolean {
    switch (this.#state) {
      case 'between':
        return this.#between(character);
      case 'word':
        return this.#inWord(character);
      case 'opening':
        return this.#opening(character);
      case 'behind-string':
        return this.#behindString(character);
      default:
        return this.#inString(character);
    }
  }

  #between(character: string): boolean {
    if (isQuote(character)) this.#openString(character, { isRaw: false, isContinued: false });
    else if ('([{'.includes(character)) this.reader.open(character);
    else if (')]}'.includes(character)) this.reader.close(character);
    else if (character === ',') this.reader.comma();
    else if (character === ':' || character === '=') this.reader.assign();
    else if (!/\s/.test(character)) {
      this.#word = '';
      this.#state = 'word';
      return false;
    }
    return true;
  }

  #openString(quote: string, { isRaw, isContinued }: { isRaw: boolean; isContinued: boolean }): void {
    this.#quote = quote;
    this.#numQuotes = 1;
    this.#isRaw = isRaw;
    this.#isContinued = isContinued;
    this.#state = 'opening';
  }

  #inWord(character: string): boolean {
    if (isQuote(character) && /^[ru]$/i.test(this.#word)) {
      this.#openString(character, { isRaw: /r/i.test(this.#word), isContinued: false });
      return true;
    }
    if (!/[\s()[\]{},:='"]/.test(character)) {
      this.#word += character;
      return true;
    }
    this.#state = 'between';
    this.reader.word(this.#word);
    return false;
  }

  /** One quote, two (an empty string) or three. */
  #opening(character: string): boolean {
    const isSame = character === this.#quote;
    if (isSame && ++this.#numQuotes < 3) return true;
    if (!this.#isContinued) this.reader.beginString();
    this.#isLong = isSame;
    const isEmpty = this.#numQuotes === 2;
    this.#numQuotes = 0;
    this.#state = isEmpty ? 'behind-string' : 'string';
    return isSame;
  }

  /** White space and another string, or the end of the value. */
  #behindString(character: string): boolean {
    if (/\s/.test(character)) return true;
    if (isQuote(character)) {
      this.#openString(character, { isRaw: false, isContinued: true });
      return true;
    }
    this.reader.endString();
    this.#state = 'between';
    return false;
  }

  #inString(character: string): boolean {
    if (this.#escape !== '') return this.#inEscape(character);
    if (character === this.#quote) {
      this.#numQuotes++;
      if (this.#numQuotes < (this.#isLong ? 3 : 1)) return true;
      this.#numQuotes = 0;
      this.#state = 'behind-string';
      return true;
    }
    if (this.#numQuotes > 0) {
      this.reader.stringPiece(this.#quote.repeat(this.#numQuotes));
      this.#numQuotes = 0;
      return false;
    }
    this.#escape = character;
    return true;
  }

  #inEscape(character: string): boolean {
    if (this.#isRaw) {
      this.#endEscape(this.#escape + character);
      return true;
    }
    const kind = this.#escape[1];
    if (kind === undefined) {
      this.#escape += character;
      if (/[xuU0-7]/.test(character)) return true;
      this.#endEscape(SIMPLE_ESCAPES[character] ?? this.#escape);
      return true;
    }
    const digits = this.#escape.slice(HEX_ESCAPES[kind] === undefined ? 1 : 2);
    const isHex = HEX_ESCAPES[kind] !== undefined;
    if (digits.length < (HEX_ESCAPES[kind] ?? 3) && (isHex ? /[\da-f]/i : /[0-7]/).test(character)) {
      this.#escape += character;
      return true;
    }
    const code = digits === '' ? Number.NaN : Number.parseInt(digits, isHex ? 16 : 8);
    this.#endEscape(code <= 0x10ffff ? String.fromCodePoint(code) : this.#escape);
    return false;
  }

  #endEscape(text: string): void {
    this.#escape = '';
    if (text !== '') this.reader.stringPiece(text);
  }
}

function isQuote(character: string): boolean {
  return character === '"' || character === "'";
}
