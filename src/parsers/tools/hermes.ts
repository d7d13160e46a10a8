import { JsonCallReader } from '../json-call-reader.ts';
import { TagSplitter } from '../tag-splitter.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Hermes, Qwen 2.5 and 3, the demo: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them. */
export const hermes: ToolFormat = {
  keepsSpecialTokens: true,
  create: (sink) => new HermesToolParser(sink),
  frame: (name) => ({ begin: `${START}\n{"name": ${JSON.stringify(name)}, "arguments": `, end: `}\n${END}` }),
};

const START = '<tool_call>';
const END = '</tool_call>';
const STARTS = new TagSplitter([START]);
const BOUNDARIES = new TagSplitter([END, START]);

class HermesToolParser implements ToolParser {
  #state: 'content' | 'call' | 'tail' = 'content';
  #pending = '';
  #call: JsonCallReader;
  /** Between a call's object and its end tag. */
  #tail = '';

  constructor(private readonly sink: ToolSink) {
    this.#call = new JsonCallReader(sink, ['arguments']);
  }

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    if (this.#state === 'call' && !this.#call.isTold) this.#content(START + this.#call.raw);
    this.#content(this.#tail + this.#pending);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    if (this.#state === 'content') return this.#readContent();
    return this.#state === 'call' ? this.#readCall() : this.#readTail();
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    this.#content(before);
    this.#pending = rest;
    if (tag !== null) this.#begin();
    return tag !== null;
  }

  #begin(): void {
    this.#call = new JsonCallReader(this.sink, ['arguments']);
    this.#state = 'call';
  }

  #readCall(): boolean {
    const end = this.#call.push(this.#pending, 0);
    this.#pending = this.#pending.slice(end);
    if (this.#call.isMalformed) {
      this.#content(START + this.#call.raw);
      this.#state = 'content';
    } else if (this.#call.isDone) this.#state = 'tail';
    return this.#state !== 'call';
  }

  /** What else is within the tags goes with them. */
  #readTail(): boolean {
    const { before, tag, rest } = BOUNDARIES.split(this.#pending);
    this.#tail += before;
    this.#pending = rest;
    if (tag === null) return false;
    this.#tail = '';
    if (tag === START) this.#begin();
    else this.#state = 'content';
    return true;
  }

  #content(text: string): void {
    if (text !== '') this.sink.content(text);
  }
}
