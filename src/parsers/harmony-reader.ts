import { TagSplitter } from './tag-splitter.ts';

/** Who a message in OpenAI's harmony format is for. */
export interface HarmonyHeader {
  channel: string;
  /** "functions.get_weather"; null: the user. */
  recipient: string | null;
}

/** Recipients that are no functions of the request: the model itself, and the tools that gpt-oss was trained with. */
const OTHERS = ['assistant', 'python', 'browser', 'container'];
const FUNCTIONS = 'functions.';

/** The function that a message calls; null where it is for somebody else. The model leaves out the `functions.` now and then. */
export function calledFunction({ recipient }: HarmonyHeader): string | null {
  if (recipient === null || OTHERS.includes(recipient.split('.')[0]!)) return null;
  return recipient.startsWith(FUNCTIONS) ? recipient.slice(FUNCTIONS.length) || null : recipient;
}

export interface HarmonySink {
  /** Text that is part of no message. */
  outside(text: string): void;
  begin(header: HarmonyHeader): void;
  body(text: string): void;
  end(): void;
}

const OUTSIDE = new TagSplitter(['<|start|>', '<|channel|>', '<|end|>', '<|call|>', '<|return|>']);
const HEADER = new TagSplitter(['<|message|>', '<|start|>']);
const BODY = new TagSplitter(['<|end|>', '<|call|>', '<|return|>', '<|start|>', '<|channel|>']);
/** The prompt ends within a header, so that an answer may begin with the recipient. */
const FIRST_RECIPIENT = ' to=';

/** Reads messages in the harmony format: `<|start|>assistant<|channel|>NAME to=RECIPIENT<|message|>TEXT<|end|>`. */
export class HarmonyReader {
  #state: 'first' | 'outside' | 'header' | 'body' = 'first';
  /** Text that may be, or begin, a mark. */
  #held = '';
  /** Of the header that is being read, with its marks. */
  #header = '';

  constructor(private readonly sink: HarmonySink) {}

  push(text: string): void {
    this.#held += text;
    if (this.#state === 'first') {
      if (this.#held.length < FIRST_RECIPIENT.length && FIRST_RECIPIENT.startsWith(this.#held)) return;
      this.#state = this.#held.startsWith(FIRST_RECIPIENT) ? 'header' : 'outside';
    }
    while (this.#step());
  }

  finish(): void {
    const rest = this.#header + this.#held;
    if (this.#state === 'body') {
      if (rest !== '') this.sink.body(rest);
      this.sink.end();
    } else if (rest !== '') this.sink.outside(rest);
  }

  /** Up to the next mark. @returns whether there may be more */
  #step(): boolean {
    if (this.#state === 'header') return this.#readHeader();
    const isBody = this.#state === 'body';
    const { before, tag, rest } = (isBody ? BODY : OUTSIDE).split(this.#held);
    if (before !== '') {
      if (isBody) this.sink.body(before);
      else this.sink.outside(before);
    }
    this.#held = rest;
    if (tag === null) return false;
    if (isBody) this.sink.end();
    this.#state = tag === '<|start|>' || tag === '<|channel|>' ? 'header' : 'outside';
    if (this.#state === 'header') this.#header = tag;
    return true;
  }

  #readHeader(): boolean {
    const { before, tag, rest } = HEADER.split(this.#held);
    this.#header += before;
    this.#held = rest;
    if (tag === null) return false;
    if (tag === '<|start|>') {
      this.#header = tag;
      return true;
    }
    this.sink.begin(parseHeader(this.#header));
    this.#header = '';
    this.#state = 'body';
    return true;
  }
}

function parseHeader(header: string): HarmonyHeader {
  const channel = /<\|channel\|>\s*(\w+)/.exec(header)?.[1] ?? '';
  const recipient = /\sto=([^\s<]+)/.exec(header)?.[1] ?? null;
  return { channel, recipient };
}
