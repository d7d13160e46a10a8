import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Granite 3: the answer is `[{"name": …, "arguments": {…}}, …]`, behind `<|tool_call|>` or `<tool_call>` or nothing. */
export const granite: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new GraniteToolParser(sink) };

const MARKS = ['<|tool_call|>', '<tool_call>'];

class GraniteToolParser implements ToolParser {
  #held = '';
  #mark = '';
  #list: JsonListParser | null = null;
  #isContent = false;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    if (this.#list !== null) this.#list.push(text);
    else if (this.#isContent) this.sink.content(text);
    else this.#readStart(text);
  }

  finish(): void {
    if (this.#list !== null) this.#list.finish();
    else if (!this.#isContent && this.#mark + this.#held !== '') this.sink.content(this.#mark + this.#held);
  }

  #readStart(text: string): void {
    const whole = this.#held + text;
    const start = whole.trimStart();
    const mark = this.#mark === '' ? MARKS.find((each) => start.startsWith(each)) : undefined;
    if (mark !== undefined) {
      const rest = start.slice(mark.length);
      this.#mark = whole.slice(0, whole.length - rest.length);
      this.#held = '';
      if (rest !== '') this.#readStart(rest);
      return;
    }
    this.#held = whole;
    if (start === '' || (this.#mark === '' && MARKS.some((each) => each.startsWith(start)))) return;
    if (start[0] === '[') {
      const lead = whole.slice(0, whole.length - start.length);
      this.#list = new JsonListParser(this.sink, ['arguments'], this.#mark + lead);
      this.#list.push(start);
    } else {
      this.#isContent = true;
      this.sink.content(this.#mark + whole);
    }
  }
}
