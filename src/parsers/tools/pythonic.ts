import { LiteralReader } from '../literal-reader.ts';
import { PythonLexer } from '../python-lexer.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/** Llama 3.2, Llama 4, ToolACE: the answer is a Python list of calls, `[get_weather(city="Paris", days=2), now()]`. */
export const pythonic: ToolFormat = { create: (sink) => new PythonicToolParser(sink) };

const IDENTIFIER = /^[\p{L}_][\p{L}\p{N}_.]*$/u;

type State = 'start' | 'name' | 'arguments' | 'next' | 'content';

class PythonicToolParser implements ToolParser {
  #state: State = 'start';
  /** Read since the last call, told as nothing. */
  #raw = '';
  #name = '';
  #reader: LiteralReader | null = null;
  #lexer: PythonLexer | null = null;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    let i = 0;
    while (i < text.length) {
      if (this.#state === 'content') {
        this.sink.content(text.slice(i));
        return;
      }
      if (this.#state === 'arguments') i = this.#readArguments(text, i);
      else if (this.#accept(text[i]!)) this.#raw += text[i++];
      else this.#giveUp();
    }
  }

  finish(): void {
    if (this.#state !== 'content' && this.#state !== 'arguments') this.#giveUp();
  }

  #accept(character: string): boolean {
    if (this.#state === 'name') return this.#acceptName(character);
    if (/\s/.test(character)) return true;
    if (this.#state === 'start') {
      this.#state = 'name';
      return character === '[';
    }
    if (character === ']') {
      this.#raw = '';
      this.#state = 'content';
      // The loop adds the bracket to what is told as nothing, and nothing tells it.
      return true;
    }
    this.#state = 'name';
    return character === ',';
  }

  #acceptName(character: string): boolean {
    if (character === '(') {
      this.#startCall();
      return this.#state === 'arguments';
    }
    if (/\s/.test(character)) return this.#name === '';
    this.#name += character;
    return this.#name.length > 1 ? /[\p{L}\p{M}\p{N}\p{Cs}_.]/u.test(character) : /[\p{L}\p{Cs}_]/u.test(character);
  }

  #startCall(): void {
    if (!IDENTIFIER.test(this.#name)) return;
    this.sink.startCall(this.#name);
    this.#reader = new LiteralReader((json) => this.sink.arguments(json), ')', 'refuse');
    this.#lexer = new PythonLexer(this.#reader);
    this.#name = '';
    this.#raw = '';
    this.#state = 'arguments';
  }

  #readArguments(text: string, from: number): number {
    const end = this.#lexer!.push(text, from);
    if (this.#reader!.isMalformed) this.#state = 'content';
    else if (this.#reader!.isDone) {
      this.#state = 'next';
      this.#raw = '';
    }
    return end;
  }

  /** The rest of the answer is content. */
  #giveUp(): void {
    this.#state = 'content';
    if (this.#raw !== '') this.sink.content(this.#raw);
    this.#raw = '';
  }
}
