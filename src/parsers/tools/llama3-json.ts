import { JsonCallReader } from '../json-call-reader.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Llama 3.1 to 3.3: the answer is `{"name": …, "parameters": {…}}`, or several with `;` between them, maybe behind `<|python_tag|>`. */
export const llama3Json: ToolFormat = { create: (sink) => new Llama3JsonToolParser(sink) };

const PYTHON_TAG = '<|python_tag|>';
const ARGUMENT_KEYS = ['parameters', 'arguments'];

class Llama3JsonToolParser implements ToolParser {
  #state: 'start' | 'call' | 'between' | 'content' = 'start';
  /** What may still turn out to be content. */
  #held = '';
  /** What may be the beginning of the tag. */
  #tag = '';
  #call: JsonCallReader;

  constructor(private readonly sink: ToolSink) {
    this.#call = new JsonCallReader(sink, ARGUMENT_KEYS);
  }

  push(text: string): void {
    let rest = text;
    if (this.#state === 'start') rest = this.#readStart(text);
    while (rest !== '') rest = this.#step(rest);
  }

  finish(): void {
    const text = this.#held + this.#tag + (this.#state === 'call' ? this.#call.raw : '');
    if (text !== '') this.sink.content(text);
  }

  /** @returns text that is for the next state */
  #readStart(text: string): string {
    const whole = this.#tag + text;
    const start = whole.trimStart();
    this.#held += whole.slice(0, whole.length - start.length);
    this.#tag = start;
    if (start === '' || (start !== PYTHON_TAG && PYTHON_TAG.startsWith(start))) return '';
    const rest = start.startsWith(PYTHON_TAG) ? start.slice(PYTHON_TAG.length) : start;
    this.#held += start.slice(0, start.length - rest.length);
    this.#tag = '';
    this.#state = 'between';
    return rest;
  }

  /** @returns what was not read */
  #step(text: string): string {
    if (this.#state === 'content') {
      this.sink.content(text);
      return '';
    }
    return this.#state === 'call' ? this.#readCall(text) : this.#readBetween(text);
  }

  #readBetween(text: string): string {
    const rest = text.replace(/^[\s;]+/, '');
    this.#held += text.slice(0, text.length - rest.length);
    if (rest === '') return '';
    if (rest[0] === '{') {
      this.#call = new JsonCallReader(this.sink, ARGUMENT_KEYS);
      this.#state = 'call';
      return rest;
    }
    return this.#giveUp(rest);
  }

  #readCall(text: string): string {
    const end = this.#call.push(text, 0);
    const rest = text.slice(end);
    if (this.#call.isMalformed) return this.#giveUp(this.#call.raw + rest);
    if (this.#call.isDone) {
      this.#held = '';
      this.#state = 'between';
    }
    return rest;
  }

  /** The rest of the answer is content. */
  #giveUp(text: string): string {
    const whole = this.#held + text;
    this.#held = '';
    this.#state = 'content';
    return whole;
  }
}
