import { JsonCallReader } from '../json-call-reader.ts';
import { TagSplitter } from '../tag-splitter.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/**
 * Llama 3.1 to 3.3: `{"name": …, "parameters": {…}}`, or several with `;` between them, maybe behind `<|python_tag|>` or in a list, with text around
 * them. From an object on that is no call all is content.
 */
export const llama3Json: ToolFormat = { create: (sink) => new Llama3JsonToolParser(sink) };

const PYTHON_TAG = '<|python_tag|>';
const STARTS = new TagSplitter([PYTHON_TAG, '{']);
const ARGUMENT_KEYS = ['parameters', 'arguments'];

class Llama3JsonToolParser implements ToolParser {
  #state: 'text' | 'call' | 'content' = 'text';
  #pending = '';
  /** Separators and tags in front of what may be a call: they go with it. */
  #held = '';
  #call: JsonCallReader;
  /** There was no text since the beginning or the last call. */
  #isBetween = true;
  #hasCalls = false;

  constructor(private readonly sink: ToolSink) {
    this.#call = new JsonCallReader(sink, ARGUMENT_KEYS);
  }

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    const isCut = this.#state === 'call' && !this.#call.isTold;
    const text = this.#held + (isCut ? this.#call.raw : '') + this.#pending;
    if (!this.#hasCalls || !isSeparator(text)) this.#content(text);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    if (this.#state === 'text') return this.#readText();
    if (this.#state === 'call') return this.#readCall();
    this.#content(this.#pending);
    this.#pending = '';
    return false;
  }

  #readText(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    const isHeld = this.#isBetween || this.#held !== '';
    if (isHeld && isSeparator(before)) this.#held += before;
    else if (before !== '') {
      this.#content(this.#held + before);
      this.#held = '';
      this.#isBetween = false;
    }
    this.#pending = rest;
    if (tag === PYTHON_TAG) this.#held += tag;
    if (tag === '{') {
      this.#pending = tag + rest;
      this.#call = new JsonCallReader(this.sink, ARGUMENT_KEYS);
      this.#state = 'call';
    }
    return tag !== null;
  }

  #readCall(): boolean {
    const end = this.#call.push(this.#pending, 0);
    this.#pending = this.#pending.slice(end);
    if (this.#call.isMalformed) {
      this.#content(this.#held + this.#call.raw);
      this.#state = 'content';
    } else if (this.#call.isDone) {
      this.#isBetween = true;
      this.#hasCalls = true;
      this.#state = 'text';
    } else {
      if (this.#call.isTold) this.#held = '';
      return false;
    }
    this.#held = '';
    return true;
  }

  #content(text: string): void {
    if (text !== '') this.sink.content(text);
  }
}

/** What stands around calls. */
function isSeparator(text: string): boolean {
  return /^[\s;,[\]]*$/.test(text);
}
