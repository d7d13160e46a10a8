import { existsSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import type { Subprocess } from 'bun';
import { QueueFullError } from '../../errors/queue-full-error.ts';
import { logger } from '../../logging/logger.ts';
import { PACKAGE_ROOT } from '../../package-layout.ts';
import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import type { GuidanceVocabulary } from '../guidance-backend.ts';
import type { TrialResult } from './trial-process.ts';

const log = logger('structured-output');

/** A process is some tens of MB and a vocabulary. Most of the time there is one. */
const MAX_PROCESSES = 8;
/** A compile takes milliseconds, a slow one of a benchmark's 11,000 schemas a second. */
const DEADLINE_MS = 3000;
/** What takes longer is given up as soon as others wait for its process. */
const FAIR_MS = 1000;
/** How long a grammar may wait for a process. */
const WAIT_MS = 15_000;
const POLL_MS = 20;
/** Reading the vocabulary of a large model takes a second or two, and more on a busy machine. */
const START_DEADLINE_MS = 30_000;
/** What takes longer goes on at the lowest priority. */
const SLOW_MS = 300;
const RETRY_AFTER_SECONDS = 5;
/** Grammars that need no second trial. */
const MAX_PASSED = 1024;

export interface TrialLimits {
  maxProcesses: number;
  deadlineMs: number;
  /** Of a compile that others wait for. */
  fairMs: number;
  waitMs: number;
}

/**
 * Compiles grammars in other processes before the server's own compiles them: llguidance can't be told to give a compile up, and takes time and memory without
 * bound for some grammars. A process that does not answer in time, or ends itself, is killed, and with it all that it held.
 */
export class GrammarTrials {
  private readonly idle: TrialProcess[] = [];
  private readonly running = new Set<TrialProcess>();
  private numWaiting = 0;
  private readonly passed = new Set<number | bigint>();
  private canStart = true;

  constructor(
    private readonly vocabulary: GuidanceVocabulary,
    private readonly limits: TrialLimits = {
      maxProcesses: MAX_PROCESSES,
      deadlineMs: DEADLINE_MS,
      fairMs: FAIR_MS,
      waitMs: WAIT_MS,
    },
  ) {}

  /**
   * Why a grammar can't be compiled; null: it can, or no process can be started here.
   *
   * @throws QueueFullError where all processes are at grammars that take long
   */
  async try(spec: GrammarSpec): Promise<string | null> {
    const key = Bun.hash(`${spec.kind} ${spec.text}`);
    if (!this.canStart || this.passed.has(key)) return null;
    const process = await this.acquire();
    if (process === null) return null;
    this.running.add(process);
    const message = await process.compile(spec, this.limits.deadlineMs);
    this.running.delete(process);
    // One is kept for the grammars to come.
    if (process.isAlive && (this.idle.length === 0 || this.numWaiting > 0)) this.idle.push(process);
    else process.kill();
    if (message === null) this.note(key);
    return message;
  }

  /** Ends the processes. */
  close(): void {
    for (const process of [...this.idle.splice(0), ...this.running]) process.kill();
  }

  private async acquire(): Promise<TrialProcess | null> {
    const { maxProcesses, fairMs, waitMs } = this.limits;
    const deadline = performance.now() + waitMs;
    this.numWaiting++;
    try {
      for (;;) {
        const idle = this.idle.pop();
        if (idle?.isAlive) return idle;
        if (this.running.size < maxProcesses) return this.start();
        const [longest] = [...this.running].sort((a, b) => b.elapsedMs - a.elapsedMs);
        if (longest!.elapsedMs > fairMs) longest!.kill();
        if (performance.now() > deadline) break;
        await Bun.sleep(POLL_MS);
      }
    } finally {
      this.numWaiting--;
    }
    throw new QueueFullError('Other grammars take long to compile. Please try again later.', RETRY_AFTER_SECONDS);
  }

  private start(): TrialProcess | null {
    try {
      const process = new TrialProcess(this.vocabulary);
      this.running.add(process);
      return process;
    } catch (error) {
      this.canStart = false;
      log.warn(`Grammars are compiled without a trial in another process, which can not be started: ${error}`);
      return null;
    }
  }

  private note(key: number | bigint): void {
    const [oldest] = this.passed;
    if (this.passed.size >= MAX_PASSED) this.passed.delete(oldest!);
    this.passed.add(key);
  }
}

class TrialProcess {
  isAlive = true;
  private wasKilled = false;
  private readonly child: Subprocess<'pipe', 'pipe', 'ignore'>;
  private readonly answers: ReadableStreamDefaultReader<Uint8Array>;
  /** The vocabulary has been read. */
  private hasStarted = false;
  /** When the compile began; null: none is running. */
  private since: number | null = null;

  /** Throws Error where it can't be started. */
  constructor(vocabulary: GuidanceVocabulary) {
    this.child = Bun.spawn(trialCommand(), { stdin: 'pipe', stdout: 'pipe', stderr: 'ignore' });
    // It ends with this process, and must not keep it.
    this.child.unref();
    this.answers = this.child.stdout.getReader();
    this.send(vocabulary);
  }

  /** Of the compile that is running. */
  get elapsedMs(): number {
    return this.since === null ? 0 : performance.now() - this.since;
  }

  /** null: it compiles. */
  async compile(spec: GrammarSpec, deadlineMs: number): Promise<string | null> {
    if (!this.hasStarted && (await this.answerWithin(START_DEADLINE_MS)) === null) {
      return 'the grammar engine has not started';
    }
    this.hasStarted = true;
    const slow = setTimeout(() => this.yieldToOthers(), SLOW_MS);
    this.since = performance.now();
    this.send(spec);
    const answer = await this.answerWithin(deadlineMs);
    clearTimeout(slow);
    const seconds = this.elapsedMs / 1000;
    this.since = null;
    if (answer !== null) return answer.message;
    return this.wasKilled
      ? `it was not compiled within ${seconds.toFixed(1)} seconds`
      : 'it makes the grammar engine fail';
  }

  kill(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.wasKilled = true;
    this.child.kill('SIGKILL');
  }

  private send(line: object): void {
    this.child.stdin.write(`${JSON.stringify(line)}\n`);
    this.child.stdin.flush();
  }

  /** null: the process has ended, or is killed since the time is up. */
  private async answerWithin(timeoutMs: number): Promise<TrialResult | null> {
    const deadline = setTimeout(() => this.kill(), timeoutMs);
    const answer = await this.answer();
    clearTimeout(deadline);
    if (answer === null) this.isAlive = false;
    return answer;
  }

  /** null: the process has ended. */
  private async answer(): Promise<TrialResult | null> {
    const decoder = new TextDecoder();
    for (let text = ''; ; ) {
      const { done, value } = await this.answers.read();
      if (done) return null;
      text += decoder.decode(value, { stream: true });
      if (text.endsWith('\n')) return JSON.parse(text) as TrialResult;
    }
  }

  private yieldToOthers(): void {
    try {
      setPriority(this.child.pid, constants.priority.PRIORITY_LOW);
    } catch {
      // It has just ended.
    }
  }
}

/** This program once more: from its source, or the executable that has it inside. */
function trialCommand(): string[] {
  const main = join(PACKAGE_ROOT, 'src/main.ts');
  return [process.execPath, ...(existsSync(main) ? [main] : []), 'grammar-trials'];
}
