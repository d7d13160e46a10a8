/** What a grammar's Worker can be asked for; a, b and the answer of each. */
export const OP = {
  /** Text: kind and grammar as JSON. Answer: the grammar's number, or 0 and the reason as text. */
  compile: 1,
  /** a: grammar, b: the matcher's number. Answer: as of `advance`. */
  newMatcher: 2,
  /** a: matcher, b: number of tokens, which are in the data. Answer: 0 open, 1 complete (then the mask is in the data), 2 refused. */
  advance: 3,
  /** a: matcher. */
  freeMatcher: 4,
  /** a: grammar. */
  freeGrammar: 5,
} as const;

export interface MailRequest {
  op: number;
  a: number;
  b: number;
}

const WORD = { request: 0, answer: 1, op: 2, a: 3, b: 4, result: 5, length: 6 } as const;
const HEAD_BYTES = 64;
/** A grammar has at most 1 MiB. */
const DATA_BYTES = 2 << 20;

/** Shared memory through which one thread asks another for one thing after the other, waiting for the answer or looking for it from time to time. */
export class Mailbox {
  /** The data as words. */
  readonly words: Int32Array;
  private readonly control: Int32Array;
  private readonly bytes: Uint8Array;
  private numRequests = 0;

  constructor(readonly memory = new SharedArrayBuffer(HEAD_BYTES + DATA_BYTES)) {
    this.control = new Int32Array(memory, 0, HEAD_BYTES / 4);
    this.bytes = new Uint8Array(memory, HEAD_BYTES);
    this.words = new Int32Array(memory, HEAD_BYTES);
  }

  /** Asks, with what is in the data or a text. The answer to what was asked before must be there. */
  post(op: number, a = 0, b = 0, text?: string): void {
    if (text !== undefined) this.writeText(text);
    const { control } = this;
    control[WORD.op] = op;
    control[WORD.a] = a;
    control[WORD.b] = b;
    Atomics.store(control, WORD.request, ++this.numRequests);
    Atomics.notify(control, WORD.request);
  }

  get isAnswered(): boolean {
    return Atomics.load(this.control, WORD.answer) === this.numRequests;
  }

  /** Blocks the thread. False: there was no answer in time. */
  wait(timeoutMs: number): boolean {
    Atomics.wait(this.control, WORD.answer, this.numRequests - 1, timeoutMs);
    return this.isAnswered;
  }

  get result(): number {
    return this.control[WORD.result]!;
  }

  get text(): string {
    // A TextDecoder takes no shared memory.
    return Buffer.from(this.bytes.slice(0, this.control[WORD.length])).toString();
  }

  /** The Worker's side: blocks until there is a request. */
  next(): MailRequest {
    const { control, numRequests } = this;
    // The notice of the last request may come when that has been answered already.
    while (Atomics.load(control, WORD.request) === numRequests) Atomics.wait(control, WORD.request, numRequests);
    this.numRequests = Atomics.load(control, WORD.request);
    return { op: control[WORD.op]!, a: control[WORD.a]!, b: control[WORD.b]! };
  }

  /** The Worker's side. */
  answer(result: number, text = ''): void {
    if (text !== '') this.writeText(text);
    this.control[WORD.result] = result;
    Atomics.store(this.control, WORD.answer, this.numRequests);
    Atomics.notify(this.control, WORD.answer);
  }

  private writeText(text: string): void {
    const bytes = Buffer.from(text);
    if (bytes.length > DATA_BYTES) throw new RangeError(`${bytes.length} bytes, a grammar's mailbox has ${DATA_BYTES}`);
    this.bytes.set(bytes);
    this.control[WORD.length] = bytes.length;
  }
}
