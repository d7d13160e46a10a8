import { type HarmonyHeader, HarmonyReader } from '../harmony-reader.ts';
import type { ReasoningFormat, ReasoningParser, ReasoningSink } from './reasoning-parser.ts';

/** gpt-oss: messages of the channel `analysis` are reasoning; those to a tool are left as they are for the tool parser. */
export const gptOss: ReasoningFormat = {
  keepsSpecialTokens: true,
  create: (sink) => new GptOssReasoningParser(sink),
};

class GptOssReasoningParser implements ReasoningParser {
  readonly #reader: HarmonyReader;
  #kind: 'reasoning' | 'content' | 'tool' = 'content';
  readonly #seen = { reasoning: false, content: false };

  constructor(private readonly sink: ReasoningSink) {
    this.#reader = new HarmonyReader({
      outside: (text) => sink.content(text),
      begin: (header) => this.#begin(header),
      body: (text) => (this.#kind === 'reasoning' ? sink.reasoning(text) : sink.content(text)),
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
  #begin({ channel, recipient }: HarmonyHeader): void {
    if (recipient !== null && channel !== 'analysis') {
      this.#kind = 'tool';
      this.sink.content(`<|channel|>${channel} to=${recipient}<|message|>`);
      return;
    }
    this.#kind = channel === 'analysis' ? 'reasoning' : 'content';
    if (this.#seen[this.#kind]) this.sink[this.#kind]('\n');
    this.#seen[this.#kind] = true;
  }
}
