import { calledFunction, type HarmonyHeader, HarmonyReader } from '../harmony-reader.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/**
 * gpt-oss: messages to `functions.NAME` are calls, their text the arguments. Messages of the channel `analysis` are left out, and those to the
 * model's own tools; those that are content are joined by a line break.
 */
export const openai: ToolFormat = { keepsSpecialTokens: true, create: (sink) => new OpenaiToolParser(sink) };

class OpenaiToolParser implements ToolParser {
  readonly #reader: HarmonyReader;
  #kind: 'call' | 'content' | 'left-out' = 'content';
  #hasContent = false;

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

  #begin(header: HarmonyHeader): void {
    const name = calledFunction(header);
    if (name !== null) {
      this.#kind = 'call';
      this.sink.startCall(name);
      return;
    }
    this.#kind = header.channel === 'analysis' || header.recipient !== null ? 'left-out' : 'content';
    if (this.#kind === 'left-out') return;
    if (this.#hasContent) this.sink.content('\n');
    this.#hasContent = true;
  }

  #body(text: string): void {
    if (this.#kind === 'call') this.sink.arguments(text);
    else if (this.#kind === 'content') this.sink.content(text);
  }
}
