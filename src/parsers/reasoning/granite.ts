import { TagSplitter } from '../tag-splitter.ts';
import type { ReasoningFormat, ReasoningParser, ReasoningSink } from './reasoning-parser.ts';

const STARTS = ['Here is my thought process:', "Here's my thought process:"];
const ENDS = new TagSplitter(['Here is my response:', "Here's my response:"]);

/** Granite 3.2: two sentences announce thoughts and answer. An answer without the first is content. */
export const granite: ReasoningFormat = { create: (sink) => new GraniteReasoningParser(sink) };

class GraniteReasoningParser implements ReasoningParser {
  #state: 'start' | 'reasoning' | 'content' = 'start';
  #held = '';

  constructor(private readonly sink: ReasoningSink) {}

  push(text: string): void {
    if (this.#state === 'content') {
      this.sink.content(text);
      return;
    }
    this.#held += text;
    if (this.#state === 'start') this.#skipStart();
    if (this.#state === 'reasoning') this.#readReasoning();
  }

  finish(): void {
    if (this.#held === '') return;
    if (this.#state === 'start') this.sink.content(this.#held);
    else this.sink.reasoning(this.#held);
    this.#held = '';
  }

  #skipStart(): void {
    const text = this.#held.trimStart();
    const start = STARTS.find((sentence) => text.startsWith(sentence));
    if (start !== undefined) {
      this.#held = text.slice(start.length);
      this.#state = 'reasoning';
    } else if (!STARTS.some((sentence) => sentence.startsWith(text))) {
      this.#passContent(this.#held);
    }
  }

  #readReasoning(): void {
    const { before, tag, rest } = ENDS.split(this.#held);
    if (before !== '') this.sink.reasoning(before);
    if (tag === null) this.#held = rest;
    else this.#passContent(rest);
  }

  #passContent(text: string): void {
    this.#state = 'content';
    this.#held = '';
    if (text !== '') this.sink.content(text);
  }
}
