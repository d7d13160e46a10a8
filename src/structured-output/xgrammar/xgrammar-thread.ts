import { Worker } from 'node:worker_threads';
import { SOURCE_URL } from '../../package-layout.ts';
import { Mailbox, OP } from './mailbox.ts';
import type { XGrammarVocabulary } from './xgrammar-engine.ts';
import type { XGrammarSpec } from './xgrammar-spec.ts';
import type { XGrammarWorkerData } from './xgrammar-worker.ts';

/** A compile that takes longer is given up; the first of a Worker has the vocabulary to prepare too. */
const COMPILE_DEADLINE_MS = 10_000;
const START_DEADLINE_MS = 30_000;
/** Everything else takes microseconds. */
const CALL_DEADLINE_MS = 1000;
const MAX_CACHED = 64;

/** Result of a compile: the grammar's number in the Worker, or why there is none. */
export type Compiled = { number: number } | { reason: string };

/**
 * A Worker with XGrammar, as the thread that owns it sees it. One that does not answer in time, or whose WebAssembly has ended itself, is dead: it is
 * terminated, and its owner takes another.
 */
export class XGrammarThread {
  /** Grammars in use. While there are any nothing is compiled here, since they would wait for that. */
  numUsers = 0;
  private readonly mailbox = new Mailbox();
  private readonly worker: Worker;
  private readonly cache = new Map<string, number>();
  private compiling: { spec: XGrammarSpec; deadlineMs: number } | null = null;
  private dead = false;
  private hasStarted = false;

  constructor(vocabulary: XGrammarVocabulary) {
    const workerData: XGrammarWorkerData = { memory: this.mailbox.memory, vocabulary };
    this.worker = new Worker(new URL('structured-output/xgrammar/xgrammar-worker.ts', SOURCE_URL), { workerData });
    this.worker.on('error', () => {
      this.dead = true;
    });
    // It must not keep the process.
    this.worker.unref();
  }

  get isDead(): boolean {
    return this.dead;
  }

  get isFree(): boolean {
    return !this.dead && this.compiling === null && this.numUsers === 0;
  }

  /** Number of a grammar that is here already; null where it isn't, or can't be used now. */
  find(spec: XGrammarSpec): number | null {
    return this.dead || this.compiling !== null ? null : (this.cache.get(keyOf(spec)) ?? null);
  }

  /** Must be free. */
  startCompile(spec: XGrammarSpec): void {
    this.dropOldest();
    const allowed = COMPILE_DEADLINE_MS + (this.hasStarted ? 0 : START_DEADLINE_MS);
    this.compiling = { spec, deadlineMs: performance.now() + allowed };
    this.mailbox.post(OP.compile, 0, 0, JSON.stringify(spec));
  }

  /** What has come of `startCompile`; null: not known yet. */
  pollCompile(): Compiled | null {
    const { compiling, mailbox } = this;
    if (compiling === null) throw new Error('nothing is compiled here');
    if (this.dead) return this.give({ reason: 'the grammar engine has failed' });
    if (mailbox.isAnswered) {
      this.hasStarted = true;
      const number = mailbox.result;
      if (number > 0) {
        this.cache.set(keyOf(compiling.spec), number);
        return this.give({ number });
      }
      const reason = mailbox.text;
      this.kill();
      return this.give({ reason });
    }
    if (performance.now() < compiling.deadlineMs) return null;
    this.kill();
    return this.give({ reason: `it was not compiled within ${COMPILE_DEADLINE_MS / 1000} seconds` });
  }

  /** Blocks for the answer; null: the Worker is dead. */
  call(op: number, a = 0, b = 0): number | null {
    if (this.dead) return null;
    this.mailbox.post(op, a, b);
    const result = this.mailbox.wait(CALL_DEADLINE_MS) ? this.mailbox.result : -1;
    if (result >= 0) return result;
    this.kill();
    return null;
  }

  /** Masks of these matchers, as many as there is room for. @returns how many were written */
  fillMasks(numbers: readonly number[], dest: Int32Array, maskWords: number): number {
    const { words } = this.mailbox;
    const room = Math.floor(words.length / maskWords);
    const asked = numbers.slice(0, room);
    words.set(asked);
    const numFilled = this.call(OP.fillMasks, asked.length) ?? 0;
    dest.set(words.subarray(0, numFilled * maskWords));
    return numFilled;
  }

  /** Whatever it does, it does no more. */
  kill(): void {
    if (!this.dead) this.worker.terminate();
    this.dead = true;
  }

  private give(compiled: Compiled): Compiled {
    this.compiling = null;
    return compiled;
  }

  private dropOldest(): void {
    const oldest = this.cache.entries().next().value;
    if (oldest === undefined || this.cache.size < MAX_CACHED) return;
    this.cache.delete(oldest[0]);
    this.call(OP.freeGrammar, oldest[1]);
  }
}

function keyOf({ kind, text }: XGrammarSpec): string {
  return `${kind} ${text}`;
}
