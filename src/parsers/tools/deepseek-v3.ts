import { JsonValueScanner } from '../json-value-scanner.ts';
import { TagSplitter } from '../tag-splitter.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/**
 * DeepSeek-V3: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, a line break, the arguments in a fenced block of JSON,
 * `<｜tool▁call▁end｜>`, more calls, `<｜tool▁calls▁end｜>`.
 */
export const deepseekV3: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new DeepseekV3ToolParser(sink) };

const CALLS_BEGIN = '<｜tool▁calls▁begin｜>';
const CALLS_END = '<｜tool▁calls▁end｜>';
const CALL_BEGIN = '<｜tool▁call▁begin｜>';
const CALL_END = '<｜tool▁call▁end｜>';
const SEPARATOR = '<｜tool▁sep｜>';

const STARTS = new TagSplitter([CALLS_BEGIN]);
const BETWEEN = new TagSplitter([CALL_BEGIN, CALLS_END]);
const HEAD_ENDS = new TagSplitter(['```json', CALL_END, CALLS_END]);
const CALL_ENDS = new TagSplitter([CALL_END, CALLS_END]);

type State = 'content' | 'between' | 'head' | 'value' | 'tail';

class DeepseekV3ToolParser implements ToolParser {
  #state: State = 'content';
  #pending = '';
  /** Read since the last call, told as nothing. */
  #raw = '';
  #head = '';
  #value = new JsonValueScanner();
  #isBlank = true;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    const isTold = this.#state === 'value' || this.#state === 'tail';
    const text = isTold ? '' : this.#raw + this.#head + this.#pending;
    if (text !== '') this.sink.content(text);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent();
      case 'between':
        return this.#readBetween();
      case 'head':
        return this.#readHead();
      case 'value':
        return this.#readValue();
      default:
        return this.#readTail();
    }
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    if (before !== '') this.sink.content(before);
    this.#pending = rest;
    if (tag === null) return false;
    this.#raw = tag;
    this.#state = 'between';
    return true;
  }

  #readBetween(): boolean {
    const { before, tag, rest } = BETWEEN.split(this.#pending);
    this.#raw += before;
    this.#pending = rest;
    if (tag === null) return false;
    this.#raw = tag === CALL_BEGIN ? this.#raw + tag : '';
    this.#state = tag === CALL_BEGIN ? 'head' : 'content';
    return true;
  }

  /** `function<｜tool▁sep｜>NAME` up to the fence. */
  #readHead(): boolean {
    const { before, tag, rest } = HEAD_ENDS.split(this.#pending);
    this.#head += before;
    this.#pending = rest;
    if (tag === null) return false;
    const [, name = ''] = this.#head.split(SEPARATOR);
    if (tag.startsWith('`') && name.trim() !== '') {
      this.sink.startCall(name.trim());
      this.#raw = '';
      this.#value = new JsonValueScanner();
      this.#isBlank = true;
      this.#state = 'value';
    } else {
      this.sink.content(this.#raw + this.#head + tag);
      this.#raw = '';
      this.#state = 'content';
    }
    this.#head = '';
    return true;
  }

  #readValue(): boolean {
    const text = this.#isBlank ? this.#pending.trimStart() : this.#pending;
    this.#pending = '';
    if (text === '') return false;
    this.#isBlank = false;
    const end = this.#value.scan(text, 0);
    this.sink.arguments(text.slice(0, end));
    this.#pending = text.slice(end);
    if (!this.#value.isDone) return false;
    this.#state = 'tail';
    return true;
  }

  /** The fence's end and whatever else is in front of the end mark. */
  #readTail(): boolean {
    const { tag, rest } = CALL_ENDS.split(this.#pending);
    this.#pending = rest;
    if (tag === null) return false;
    this.#state = tag === CALL_END ? 'between' : 'content';
    return true;
  }
}
