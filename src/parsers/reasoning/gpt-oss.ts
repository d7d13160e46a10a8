import { calledFunction, type HarmonyHeader, HarmonyReader } from '../harmony-reader.ts';
import type { ReasoningFormat, ReasoningParser, ReasoningSink } from './reasoning-parser.ts';

/** gpt-oss: messages of the channel `analysis` are reasoning; those to a function are left as they are for the tool parser, others to a tool are left out. */
export const gptOss: ReasoningFormat = {
  keepsSpecialTokens: true,
  create: (sink) => new GptOssReasoningParser(sink),
};

class GptOssReasoningParser implements ReasoningParser {
  readonly #reader: HarmonyReader;
  #kind: 'reasoning' | 'content' | 'tool' | 'left-out' = 'content';
  readonly #seen = { reasoning: false, content: false };

  constructor(private readonly sink: ReasoningSink) {
    this.#reader = new HarmonyReader({
      outside: (text) => sink.content(text),
      begin: (header) => this.#begin(header),
      body: (text) => this.#body(text),
      end: () => this.#kind === 'tool' && sink.content('<|call|>'),
    });
  }

  push(text: string): void {
    this.#reader.push(text);
  }

  finish(): void {
    this.#reader.finish();
  }

  /** Messages of one kind are joined by a line break. */
  #begin(header: HarmonyHeader): void {
    const { channel, recipient } = header;
    if (calledFunction(header) !== null) {
      this.#kind = 'tool';
      this.sink.content(`<|channel|>${channel} to=${recipient}<|message|>`);
      return;
    }
    if (recipient !== null && channel !== 'analysis') {
      this.#kind = 'left-out';
      return;
    }
    this.#kind = channel === 'analysis' ? 'reasoning' : 'content';
    if (this.#seen[this.#kind]) this.sink[this.#kind]('\n');
    this.#seen[this.#kind] = true;
  }

  #body(text: string): void {
    if (this.#kind === 'reasoning') this.sink.reasoning(text);
    else if (this.#kind !== 'left-out') this.sink.content(text);
  }
}
