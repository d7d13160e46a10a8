import { TagSplitter } from '../tag-splitter.ts';
import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Phi-4-mini: `functools[{"name": …, "arguments": {…}}, …]`. */
export const phi4MiniJson: ToolFormat = { create: (sink) => new Phi4MiniToolParser(sink) };

const MARK = 'functools';
const STARTS = new TagSplitter([`${MARK}[`]);

class Phi4MiniToolParser implements ToolParser {
  #pending = '';
  #list: JsonListParser | null = null;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    if (this.#list !== null) {
      this.#list.push(text);
      return;
    }
    const { before, tag, rest } = STARTS.split(this.#pending + text);
    if (before !== '') this.sink.content(before);
    this.#pending = rest;
    if (tag === null) return;
    this.#list = new JsonListParser(this.sink, ['arguments', 'parameters'], MARK);
    this.#list.push(`[${rest}`);
  }

  finish(): void {
    if (this.#list !== null) this.#list.finish();
    else if (this.#pending !== '') this.sink.content(this.#pending);
  }
}
