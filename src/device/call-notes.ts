import type { Ops } from './device.ts';
import { OPS, type OpName } from './ops.ts';

type OpCall = (...args: number[]) => void;

/** Calls of ops, one behind the other: of each the op's place in OPS, then its arguments. */
export type Calls = Float64Array;

/** As many numbers as some hundred calls have. */
const FIRST_CAPACITY = 1 << 12;

/** Where calls are written to. */
class NoteBuffer {
  isOpen = false;
  words = new Float64Array(FIRST_CAPACITY);
  length = 0;

  /** Where so many numbers have room from. */
  take(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.words.length) {
      const larger = new Float64Array(2 * this.words.length);
      larger.set(this.words);
      this.words = larger;
    }
    return at;
  }
}

/** A device's ops, whose calls can be noted in place of being made. Nothing is allocated for a call. */
export class CallNotes {
  readonly ops: Ops;
  private readonly buffer = new NoteBuffer();
  /** By place in OPS. */
  private readonly callers: ((calls: Calls, at: number) => void)[];
  private readonly lengths: number[];

  constructor(ops: Ops) {
    const table = Object.entries(OPS).map(([name, { args }], place) => {
      const op: OpCall = ops[name as OpName];
      const numArgs = Object.keys(args).length;
      return {
        name,
        length: 1 + numArgs,
        noted: notedOp(op, place, numArgs, this.buffer),
        caller: callerOf(op, numArgs),
      };
    });
    this.ops = Object.fromEntries(table.map(({ name, noted }) => [name, noted])) as Ops;
    this.callers = table.map(({ caller }) => caller);
    this.lengths = table.map(({ length }) => length);
  }

  /** Notes the calls that `enqueue` makes, which are not made. They are valid until the next ones are noted. */
  take<Result>(enqueue: () => Result): { calls: Calls; result: Result } {
    const { buffer } = this;
    buffer.length = 0;
    buffer.isOpen = true;
    try {
      const result = enqueue();
      return { calls: buffer.words.subarray(0, buffer.length), result };
    } finally {
      buffer.isOpen = false;
    }
  }

  /** Makes the calls. Throws what an op throws. */
  make(calls: Calls): void {
    for (let at = 0; at < calls.length; ) {
      const place = calls[at]!;
      this.callers[place]!(calls, at + 1);
      at += this.lengths[place]!;
    }
  }
}

function argNames(numArgs: number): string[] {
  return Array.from({ length: numArgs }, (_, i) => `a${i}`);
}

/** The op, noted while the buffer is open. Its arity is fixed, so that a call allocates nothing. */
function notedOp(op: OpCall, place: number, numArgs: number, buffer: NoteBuffer): OpCall {
  const args = argNames(numArgs);
  const stores = args.map((name, i) => `words[at + ${i + 1}] = ${name};`);
  const make = new Function(
    'op',
    'buffer',
    `return function (${args}) {
      if (!buffer.isOpen) return op(${args});
      const at = buffer.take(${numArgs + 1});
      const { words } = buffer;
      words[at] = ${place}; ${stores.join(' ')}
    };`,
  );
  return make(op, buffer);
}

/** Calls the op with the arguments that lie in `calls` from `at` on. */
function callerOf(op: OpCall, numArgs: number): (calls: Calls, at: number) => void {
  const args = argNames(numArgs).map((_, i) => `calls[at + ${i}]`);
  return new Function('op', `return function (calls, at) { op(${args}); };`)(op);
}
