import { type HarmonyHeader, HarmonyReader } from '../harmony-reader.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** gpt-oss: messages to `functions.NAME` are calls, their text the arguments. Messages of the channel `analysis` are left out. */
export const openai: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new OpenaiToolParser(sink) };

const FUNCTIONS = 'functions.';

class OpenaiToolParser implements ToolParser {
  readonly #reader: HarmonyReader;
  #kind: 'call' | 'content' | 'left-out' = 'content';

  constructor(private readonly sink: ToolSink) {
    this.#reader = new HarmonyReader({
      outside: (text) => sink.content(text),
      begin: (header) => this.#begin(header),
      body: (text) => this.#body(text),
      end: () => {},
    });
  }

  push(text: string): void {
    this.#reader.push(text);
  }

  finish(): void {
    this.#reader.finish();
  }

  #begin({ channel, recipient }: HarmonyHeader): void {
    if (recipient?.startsWith(FUNCTIONS)) {
      this.#kind = 'call';
      this.sink.startCall(recipient.slice(FUNCTIONS.length));
    } else this.#kind = channel === 'analysis' ? 'left-out' : 'content';
  }

  #body(text: string): void {
    if (this.#kind === 'call') this.sink.arguments(text);
    else if (this.#kind === 'content') this.sink.content(text);
  }
}
