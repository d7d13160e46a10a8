import type { LiteralReader } from './literal-reader.ts';
import { TagSplitter } from './tag-splitter.ts';

const ESCAPE = '<escape>';
const STRING_ENDS = new TagSplitter([ESCAPE]);
const DELIMITERS = /[{}[\],:]|<escape>/;

/** Cuts FunctionGemma's literals, which come in pieces, into the tokens of a LiteralReader: strings stand between two `<escape>`. */
export class GemmaLexer {
  #pending = '';
  #isString = false;
  /** A key, a number or a constant so far. */
  #word = '';

  constructor(private readonly reader: LiteralReader) {}

  /** What was read and not used, when the reader is done or has failed. */
  get rest(): string {
    return this.#pending;
  }

  push(text: string): void {
    this.#pending += text;
    while (!this.reader.isDone && !this.reader.isMalformed && this.#step());
  }

  /** @returns whether there may be more */
  #step(): boolean {
    return this.#isString ? this.#readString() : this.#readToken();
  }

  #readString(): boolean {
    const { before, tag, rest } = STRING_ENDS.split(this.#pending);
    if (before !== '') this.reader.stringPiece(before);
    this.#pending = rest;
    if (tag === null) return false;
    this.reader.endString();
    this.#isString = false;
    return true;
  }

  #readToken(): boolean {
    const match = DELIMITERS.exec(this.#pending);
    if (match === null) return this.#extendWord();
    const [delimiter] = match;
    const word = (this.#word + this.#pending.slice(0, match.index)).trim();
    this.#word = '';
    this.#pending = this.#pending.slice(match.index + delimiter.length);
    if (word !== '') this.reader.word(word);
    if (!this.reader.isMalformed) this.#tell(delimiter);
    return true;
  }

  /** All but what may be the beginning of a string's mark. */
  #extendWord(): boolean {
    const { before, rest } = STRING_ENDS.split(this.#pending);
    this.#word += before;
    this.#pending = rest;
    return false;
  }

  #tell(delimiter: string): void {
    if (delimiter === ESCAPE) {
      this.reader.beginString();
      this.#isString = true;
    } else if (delimiter === '{' || delimiter === '[') this.reader.open(delimiter);
    else if (delimiter === '}' || delimiter === ']') this.reader.close(delimiter);
    else if (delimiter === ',') this.reader.comma();
    else this.reader.assign();
  }
}
