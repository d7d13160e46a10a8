import { parsedJson } from './json-value-scanner.ts';
import { JsonWriter } from './json-writer.ts';

interface Frame {
  kind: 'object' | 'array';
  closing: string;
  expects: 'key' | 'assign' | 'value' | 'next';
}

const WORDS: Readonly<Record<string, string>> = {
  True: 'true',
  true: 'true',
  False: 'false',
  false: 'false',
  None: 'null',
  null: 'null',
};

/** JSON of a word that stands for a value: a constant or a number; null for any other. */
export function wordToJson(word: string): string | null {
  if (Object.hasOwn(WORDS, word)) return WORDS[word]!;
  if (typeof parsedJson(word) === 'number') return word;
  // 1., .5, +1, 0x1f, 1_000
  const number = /^[+-]?[\d.]/.test(word) ? Number(word.replaceAll('_', '')) : Number.NaN;
  return Number.isFinite(number) ? String(number) : null;
}

/**
 * The grammar of literals that are not JSON but mean the same, fed with the tokens of a language's lexer: objects of `key: value` and arrays,
 * of strings, numbers and constants. Writes JSON as it reads. Starts inside an object.
 */
export class LiteralReader {
  /** The outermost object has ended. */
  isDone = false;
  /** It is no literal; what has been written so far stays. */
  isMalformed = false;
  readonly #writer: JsonWriter;
  readonly #frames: Frame[] = [];
  /** The text of a string that is a key. */
  #key: string | null = null;

  /**
   * @param closing the character that ends the outermost object
   * @param otherWords what a word is that is neither constant nor number: an error, or a text
   */
  constructor(
    emit: (json: string) => void,
    closing: string,
    private readonly otherWords: 'refuse' | 'text',
  ) {
    this.#writer = new JsonWriter(emit);
    this.#writer.open('{');
    this.#frames.push({ kind: 'object', closing, expects: 'key' });
  }

  open(bracket: string): void {
    if (!this.#beginValue()) return;
    const isObject = bracket === '{';
    this.#writer.open(isObject ? '{' : '[');
    const closing = isObject ? '}' : bracket === '(' ? ')' : ']';
    this.#frames.push({ kind: isObject ? 'object' : 'array', closing, expects: isObject ? 'key' : 'value' });
  }

  close(bracket: string): void {
    const { kind, closing, expects } = this.#frame;
    const mayEnd = expects === 'next' || expects === (kind === 'object' ? 'key' : 'value');
    if (bracket !== closing || !mayEnd) {
      this.isMalformed = true;
      return;
    }
    this.#writer.close(kind === 'object' ? '}' : ']');
    this.#frames.pop();
    this.isDone = this.#frames.length === 0;
  }

  comma(): void {
    if (this.#frame.expects !== 'next') this.isMalformed = true;
    else this.#frame.expects = this.#frame.kind === 'object' ? 'key' : 'value';
  }

  /** Between a key and its value. */
  assign(): void {
    if (this.#frame.expects !== 'assign') this.isMalformed = true;
    else this.#frame.expects = 'value';
  }

  word(word: string): void {
    if (this.#frame.expects === 'key') {
      this.#writeKey(word);
    } else if (this.#beginValue()) {
      const json = wordToJson(word) ?? (this.otherWords === 'text' ? JSON.stringify(word) : null);
      if (json === null) this.isMalformed = true;
      else this.#writer.value(json);
    }
  }

  beginString(): void {
    if (this.#frame.expects === 'key') this.#key = '';
    else if (this.#beginValue()) this.#writer.beginString();
  }

  stringPiece(text: string): void {
    if (this.#key !== null) this.#key += text;
    else this.#writer.stringPiece(text);
  }

  endString(): void {
    if (this.#key === null) this.#writer.endString();
    else this.#writeKey(this.#key);
    this.#key = null;
  }

  get #frame(): Frame {
    return this.#frames.at(-1)!;
  }

  #writeKey(key: string): void {
    this.#writer.key(key);
    this.#frame.expects = 'assign';
  }

  #beginValue(): boolean {
    if (this.#frame.expects !== 'value') {
      this.isMalformed = true;
      return false;
    }
    this.#frame.expects = 'next';
    return true;
  }
}
