import { isJsonSpace, JsonValueScanner, parsedJson } from './json-value-scanner.ts';
import type { ToolSink } from './tools/tool-parser.ts';

type State = 'start' | 'key' | 'in-key' | 'colon' | 'value' | 'in-value' | 'next' | 'done' | 'malformed';

/**
 * Reads one call written as a JSON object: a `name`, and its arguments under one of some keys, in any order and with other members. The
 * arguments are passed on as they are written, once the name is known.
 */
export class JsonCallReader {
  /** All that was read of an object that is not (yet) a call; '' once the call was told. */
  raw = '';
  #state: State = 'start';
  #scanner = new JsonValueScanner();
  #key = '';
  #value = '';
  #name: string | null = null;
  /** Arguments that came before the name. */
  #early = '';
  #hasArguments = false;
  /** Of arguments given twice the first count. */
  #argumentsEnded = false;

  constructor(
    private readonly sink: ToolSink,
    private readonly argumentKeys: readonly string[],
    /** What a call without arguments is: none, or one with an empty object. */
    private readonly withoutArguments: 'refuse' | 'empty' = 'refuse',
  ) {}

  /** The call was told: it has a name, and its arguments have begun. */
  get isTold(): boolean {
    return this.#name !== null && this.#hasArguments;
  }

  /** The object has ended. */
  get isDone(): boolean {
    return this.#state === 'done';
  }

  /** It is no call, and none was told: `raw` is content. */
  get isMalformed(): boolean {
    return this.#state === 'malformed';
  }

  /** @returns the index behind the last character read; less than the length when the object has ended or is malformed */
  push(text: string, from: number): number {
    let i = from;
    while (i < text.length && this.#state !== 'done' && this.#state !== 'malformed') {
      if (this.#state === 'in-key' || this.#state === 'in-value') i = this.#scanValue(text, i);
      else i = this.#step(text, i);
    }
    return i;
  }

  /** One character between values. */
  #step(text: string, i: number): number {
    if (isJsonSpace(text.charCodeAt(i))) {
      this.#keep(text[i]!);
      return i + 1;
    }
    const next = this.#after(text[i]!);
    if (next === 'malformed') this.#fail();
    else this.#state = next;
    if (next === 'in-key' || next === 'in-value') {
      this.#scanner = new JsonValueScanner();
      return i;
    }
    if (next === 'malformed') return i;
    this.#keep(text[i]!);
    if (next === 'done') this.#close();
    return i + 1;
  }

  #after(character: string): State {
    switch (this.#state) {
      case 'start':
        return character === '{' ? 'key' : 'malformed';
      case 'key':
        if (character === '"') return 'in-key';
        return character === '}' ? 'done' : 'malformed';
      case 'colon':
        return character === ':' ? 'value' : 'malformed';
      case 'value':
        return /[[{"\w-]/.test(character) ? 'in-value' : 'malformed';
      default:
        if (character === ',') return 'key';
        return character === '}' ? 'done' : 'malformed';
    }
  }

  #scanValue(text: string, from: number): number {
    const end = this.#scanner.scan(text, from);
    const piece = text.slice(from, end);
    if (this.#state === 'in-key') this.#key += piece;
    else if (this.#isArguments) this.#passArguments(piece);
    else this.#value += piece;
    this.#keep(piece);
    if (this.#scanner.isDone) this.#endValue();
    return end;
  }

  #endValue(): void {
    if (this.#state === 'in-key') {
      this.#key = String(parsedJson(this.#key) ?? '');
      this.#state = 'colon';
      return;
    }
    if (this.#isArguments) this.#argumentsEnded = true;
    else if (this.#key === 'name' && this.#name === null) this.#setName(parsedJson(this.#value));
    this.#key = '';
    this.#value = '';
    this.#state = this.#state === 'malformed' ? 'malformed' : 'next';
  }

  get #isArguments(): boolean {
    return !this.#argumentsEnded && this.argumentKeys.includes(this.#key);
  }

  #setName(name: unknown): void {
    if (typeof name !== 'string' || name === '') {
      this.#fail();
      return;
    }
    this.#name = name;
    if (this.#hasArguments) this.#start();
  }

  #passArguments(piece: string): void {
    if (!this.#hasArguments) {
      this.#hasArguments = true;
      if (this.#name !== null) this.#start();
    }
    if (this.#name === null) this.#early += piece;
    else this.sink.arguments(piece);
  }

  #start(): void {
    this.sink.startCall(this.#name!);
    if (this.#early !== '') this.sink.arguments(this.#early);
    this.#early = '';
    this.raw = '';
  }

  #keep(piece: string): void {
    if (!this.isTold) this.raw += piece;
  }

  #close(): void {
    if (!this.#hasArguments && this.#name !== null && this.withoutArguments === 'empty') this.#passArguments('{}');
    if (!this.isTold) this.#state = 'malformed';
  }

  /** What was told can't be taken back: a started call just ends. */
  #fail(): void {
    this.#state = this.isTold ? 'done' : 'malformed';
  }
}
