import { JsonCallReader } from './json-call-reader.ts';
import { isJsonSpace } from './json-value-scanner.ts';
import type { ToolSink } from './tools/tool-parser.ts';

/** Reads calls written as a JSON array of objects: `[{"name": …, "arguments": …}, …]`. */
export class JsonCallList {
  #state: 'start' | 'item' | 'in-item' | 'next' | 'done' | 'malformed' = 'start';
  #reader: JsonCallReader;
  /** Read since the last call was told. */
  #raw = '';

  constructor(
    private readonly sink: ToolSink,
    private readonly argumentKeys: readonly string[],
    private readonly withoutArguments: 'refuse' | 'empty' = 'refuse',
  ) {
    this.#reader = new JsonCallReader(sink, argumentKeys, withoutArguments);
  }

  /** The array has ended. */
  get isDone(): boolean {
    return this.#state === 'done';
  }

  /** It is no array of calls, from `raw` on. */
  get isMalformed(): boolean {
    return this.#state === 'malformed';
  }

  /** What was read and told as nothing. */
  get raw(): string {
    return this.#state === 'in-item' || this.#state === 'malformed' ? this.#raw + this.#reader.raw : this.#raw;
  }

  /** @returns the index behind the last character read; less than the length when the array has ended or is malformed */
  push(text: string, from: number): number {
    let i = from;
    while (i < text.length && this.#state !== 'done' && this.#state !== 'malformed') {
      i = this.#state === 'in-item' ? this.#readItem(text, i) : this.#step(text, i);
    }
    return i;
  }

  #readItem(text: string, from: number): number {
    const end = this.#reader.push(text, from);
    if (this.#reader.isMalformed) this.#state = 'malformed';
    if (this.#reader.isDone) {
      this.#state = 'next';
      this.#raw = '';
    }
    return end;
  }

  #step(text: string, i: number): number {
    const character = text[i]!;
    const isSpace = isJsonSpace(text.charCodeAt(i));
    if (!isSpace && this.#state === 'item' && character === '{') {
      this.#reader = new JsonCallReader(this.sink, this.argumentKeys, this.withoutArguments);
      this.#state = 'in-item';
      return i;
    }
    if (!isSpace && !this.#advance(character)) {
      this.#state = 'malformed';
      return i;
    }
    this.#raw = this.#state === 'done' ? '' : this.#raw + character;
    return i + 1;
  }

  #advance(character: string): boolean {
    if (this.#state === 'start' && character === '[') this.#state = 'item';
    else if (this.#state === 'next' && character === ',') this.#state = 'item';
    else if (this.#state === 'next' && character === ']') this.#state = 'done';
    else return false;
    return true;
  }
}
