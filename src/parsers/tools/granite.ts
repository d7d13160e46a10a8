import { TagSplitter } from '../tag-splitter.ts';
import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Granite 3: `[{"name": …, "arguments": {…}}, …]` behind `<|tool_call|>` or `<tool_call>`, once or more, or as the whole answer. */
export const granite: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new GraniteToolParser(sink) };

const STARTS = new TagSplitter(['<|tool_call|>', '<tool_call>']);

class GraniteToolParser implements ToolParser {
  #state: 'start' | 'content' | 'marked' = 'start';
  /** What may begin a mark. */
  #pending = '';
  /** White space and mark in front of the array. */
  #lead = '';
  #list: JsonListParser | null = null;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    if (this.#list !== null) this.#list.finish();
    else this.#content(this.#lead + this.#pending);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    if (this.#list !== null) return this.#readList(this.#list);
    return this.#state === 'content' ? this.#readContent() : this.#readLead();
  }

  #readList(list: JsonListParser): boolean {
    const text = this.#pending;
    this.#pending = '';
    list.push(text);
    return this.#list === null;
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    this.#content(before);
    this.#pending = rest;
    if (tag === null) return false;
    this.#lead = tag;
    this.#state = 'marked';
    return true;
  }

  /** White space, then the array, or there is none here. */
  #readLead(): boolean {
    const text = this.#pending.trimStart();
    this.#lead += this.#pending.slice(0, this.#pending.length - text.length);
    this.#pending = text;
    if (text === '') return false;
    if (text[0] === '[') this.#beginList();
    else this.#content(this.#lead);
    this.#lead = '';
    this.#state = 'content';
    return true;
  }

  #beginList(): void {
    const list = new JsonListParser(
      {
        content: (text) => {
          if (!list.isDone) return this.sink.content(text);
          this.#list = null;
          this.#pending = text;
        },
        startCall: (name) => this.sink.startCall(name),
        arguments: (json) => this.sink.arguments(json),
      },
      ['arguments'],
      this.#lead,
      'empty',
    );
    this.#list = list;
  }

  #content(text: string): void {
    if (text !== '') this.sink.content(text);
  }
}
