import { GemmaLexer } from '../gemma-lexer.ts';
import { LiteralReader } from '../literal-reader.ts';
import { TagSplitter } from '../tag-splitter.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** FunctionGemma: `<start_function_call>call:NAME{key:<escape>text<escape>,other:1}<end_function_call>`. */
export const functiongemma: ToolFormat = {
  keepsSpecialTokens: true,
  create: (sink) => new FunctiongemmaToolParser(sink),
};

const START = '<start_function_call>';
const END = '<end_function_call>';
const STARTS = new TagSplitter([START]);
const NAME_ENDS = new TagSplitter(['{', END, START]);
const ENDS = new TagSplitter([END, START]);
const HEAD = /^\s*call:\s*(\S+)\s*$/;

class FunctiongemmaToolParser implements ToolParser {
  #state: 'content' | 'head' | 'arguments' | 'tail' = 'content';
  #pending = '';
  #head = '';
  #reader: LiteralReader | null = null;
  #lexer: GemmaLexer | null = null;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    const text = this.#state === 'head' ? START + this.#head + this.#pending : this.#pending;
    if (this.#state !== 'tail' && text !== '') this.sink.content(text);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent();
      case 'head':
        return this.#readHead();
      case 'arguments':
        return this.#readArguments();
      default:
        return this.#readTail();
    }
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    if (before !== '') this.sink.content(before);
    this.#pending = rest;
    if (tag !== null) this.#state = 'head';
    return tag !== null;
  }

  #readHead(): boolean {
    const { before, tag, rest } = NAME_ENDS.split(this.#pending);
    this.#head += before;
    this.#pending = rest;
    if (tag === null) return false;
    const name = HEAD.exec(this.#head)?.[1];
    if (tag === '{' && name !== undefined) this.#startCall(name);
    else {
      this.sink.content(START + this.#head + (tag === START ? '' : tag));
      this.#state = tag === START ? 'head' : 'content';
    }
    this.#head = '';
    return true;
  }

  #startCall(name: string): void {
    this.sink.startCall(name);
    this.#reader = new LiteralReader((json) => this.sink.arguments(json), '}', 'text');
    this.#lexer = new GemmaLexer(this.#reader);
    this.#state = 'arguments';
  }

  #readArguments(): boolean {
    const text = this.#pending;
    this.#pending = '';
    this.#lexer!.push(text);
    if (!this.#reader!.isDone && !this.#reader!.isMalformed) return false;
    this.#pending = this.#lexer!.rest;
    this.#state = 'tail';
    return true;
  }

  #readTail(): boolean {
    const { tag, rest } = ENDS.split(this.#pending);
    this.#pending = rest;
    if (tag === null) return false;
    this.#state = tag === START ? 'head' : 'content';
    return true;
  }
}
