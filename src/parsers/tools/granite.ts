import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Granite 3: the answer is `[{"name": …, "arguments": {…}}, …]`, behind `<|tool_call|>` or `<tool_call>` or nothing. */
export const granite: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new GraniteToolParser(sink) };

const MARKS = ['<|tool_call|>', '<tool_call>'];

class GraniteToolParser implements ToolParser {
  /** White space and mark in front of the array. */
  #lead = '';
  #hasMark = false;
  /** Text that may begin a mark. */
  #held = '';
  #list: JsonListParser | null = null;
  #isContent = false;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    if (this.#list !== null) this.#list.push(text);
    else if (this.#isContent) this.sink.content(text);
    else this.#readStart(text);
  }

  finish(): void {
    const text = this.#lead + this.#held;
    if (this.#list !== null) this.#list.finish();
    else if (!this.#isContent && text !== '') this.sink.content(text);
  }

  #readStart(text: string): void {
    const whole = this.#held + text;
    const start = whole.trimStart();
    this.#lead += whole.slice(0, whole.length - start.length);
    this.#held = start;
    if (start === '') return;
    const mark = this.#hasMark ? undefined : MARKS.find((each) => start.startsWith(each));
    if (mark !== undefined) {
      this.#lead += mark;
      this.#hasMark = true;
      this.#held = '';
      this.#readStart(start.slice(mark.length));
    } else if (start[0] === '[') {
      this.#list = new JsonListParser(this.sink, ['arguments'], this.#lead);
      this.#list.push(start);
    } else if (this.#hasMark || !MARKS.some((each) => each.startsWith(start))) {
      this.#isContent = true;
      this.sink.content(this.#lead + start);
    }
  }
}
