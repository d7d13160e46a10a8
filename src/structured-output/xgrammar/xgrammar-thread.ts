import { Worker } from 'node:worker_threads';
import { logger } from '../../logging/logger.ts';
import { SOURCE_URL } from '../../package-layout.ts';
import { Mailbox, OP } from './mailbox.ts';
import type { XGrammarVocabulary } from './xgrammar-engine.ts';
import type { XGrammarSpec } from './xgrammar-spec.ts';
import type { XGrammarWorkerData } from './xgrammar-worker.ts';

const log = logger('structured-output');

/** A compile that takes longer is given up; the first of a Worker has the vocabulary to prepare too. */
const COMPILE_DEADLINE_MS = 10_000;
const START_DEADLINE_MS = 30_000;
/** Everything else takes microseconds, or some milliseconds: only a Worker that hangs meets it, however busy the machine is. */
const CALL_DEADLINE_MS = 10_000;
const MAX_CACHED = 64;
const FAILED = 'the grammar engine has failed';

/** Result of a compile: the grammar's number in the Worker, or why there is none. */
export type Compiled = { number: number } | { reason: string };

/** Something that the Worker is asked for. */
interface Job {
  op: number;
  a: number;
  b: number;
  /** What goes along. */
  data?: string | readonly number[];
  timeoutMs: number;
  /** Gets the answer; null: the Worker is dead. */
  done: (result: number | null) => void;
}

/**
 * A Worker with XGrammar, as the thread that owns it sees it: it does one job after another, and whoever is interested looks for the answers. One that does not
 * answer in time, or whose WebAssembly has ended itself, is dead: it is terminated, and its owner takes another.
 */
export class XGrammarThread {
  /** Grammars in use. While there are any nothing is compiled here, since they would wait for that. */
  numUsers = 0;
  private readonly mailbox = new Mailbox();
  private readonly worker: Worker;
  private readonly cache = new Map<string, number>();
  private readonly jobs: Job[] = [];
  private current: { job: Job; deadlineMs: number } | null = null;
  private isCompiling = false;
  private dead = false;
  private hasStarted = false;
  private numMatchers = 0;

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
    return !this.dead && !this.isCompiling && this.numUsers === 0;
  }

  /** Number of a grammar that is here already; null where it isn't, or can't be used now. */
  find(spec: XGrammarSpec): number | null {
    return this.dead || this.isCompiling ? null : (this.cache.get(keyOf(spec)) ?? null);
  }

  /** Must be free. */
  startCompile(spec: XGrammarSpec, done: (compiled: Compiled) => void): void {
    this.dropOldest();
    this.isCompiling = true;
    const timeoutMs = COMPILE_DEADLINE_MS + (this.hasStarted ? 0 : START_DEADLINE_MS);
    const startedMs = performance.now();
    const finish = (number: number | null) => {
      this.isCompiling = false;
      if (number === null) {
        const isLate = performance.now() - startedMs >= timeoutMs;
        done({ reason: isLate ? `it was not compiled within ${COMPILE_DEADLINE_MS / 1000} seconds` : FAILED });
      } else if (number > 0) {
        this.cache.set(keyOf(spec), number);
        done({ number });
      } else {
        const reason = this.mailbox.text;
        this.kill();
        done({ reason });
      }
    };
    this.ask({ op: OP.compile, a: 0, b: 0, data: JSON.stringify(spec), timeoutMs, done: finish });
  }

  /** A matcher at the start of a grammar. @returns its number; `done` hears when it has a mask, as with {@link advance} */
  newMatcher(grammar: number, done: (status: number | null) => void): number {
    const number = ++this.numMatchers;
    this.call(OP.newMatcher, grammar, number, undefined, done);
    return number;
  }

  /** `done` gets what the Worker says; then, before another answer is looked for, `mask` is the matcher's. */
  advance(matcher: number, tokenIds: readonly number[], done: (status: number | null) => void): void {
    this.call(OP.advance, matcher, tokenIds.length, tokenIds, done);
  }

  mask(maskWords: number): Int32Array {
    return this.mailbox.words.slice(0, maskWords);
  }

  freeMatcher(matcher: number): void {
    this.call(OP.freeMatcher, matcher);
  }

  /** Looks for the answer, and goes on with the next job. */
  poll(): void {
    while (this.current !== null) {
      const { job, deadlineMs } = this.current;
      const { isAnswered, result } = this.mailbox;
      if (this.dead || (isAnswered ? result < 0 : performance.now() > deadlineMs)) {
        log.warn(`A grammar Worker ${isAnswered || this.dead ? 'has failed' : 'does not answer'} and is replaced`);
        this.kill();
      } else if (isAnswered) {
        this.hasStarted = true;
        this.current = null;
        job.done(result);
        this.next();
      } else break;
    }
  }

  /** Blocks until there is an answer, at most so long. */
  wait(timeoutMs: number): void {
    if (this.current !== null && !this.dead) this.mailbox.wait(timeoutMs);
    this.poll();
  }

  /** Whatever it does, it does no more. */
  kill(): void {
    if (!this.dead) this.worker.terminate();
    this.dead = true;
    const left = this.current === null ? this.jobs : [this.current.job, ...this.jobs];
    this.current = null;
    for (const { done } of left.splice(0)) done(null);
    this.jobs.length = 0;
  }

  private call(op: number, a: number, b = 0, data?: readonly number[], done: Job['done'] = () => {}): void {
    this.ask({ op, a, b, ...(data === undefined ? {} : { data }), timeoutMs: CALL_DEADLINE_MS, done });
  }

  private ask(job: Job): void {
    if (this.dead) {
      job.done(null);
      return;
    }
    this.jobs.push(job);
    this.next();
  }

  private next(): void {
    if (this.current !== null) return;
    const job = this.jobs.shift();
    if (job === undefined) return;
    this.current = { job, deadlineMs: performance.now() + job.timeoutMs };
    const { op, a, b, data } = job;
    if (typeof data === 'object') this.mailbox.words.set(data);
    this.mailbox.post(op, a, b, typeof data === 'string' ? data : undefined);
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
