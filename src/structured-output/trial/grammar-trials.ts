import { existsSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import type { Subprocess } from 'bun';
import { QueueFullError } from '../../errors/queue-full-error.ts';
import { logger } from '../../logging/logger.ts';
import { PACKAGE_ROOT } from '../../package-layout.ts';
import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import type { GuidanceVocabulary } from '../guidance-backend.ts';
import type { TrialAnswer } from './trial-process.ts';

const log = logger('structured-output');

/** A process is some tens of MB and a vocabulary. Most of the time there is one. */
const MAX_PROCESSES = 8;
/** Of processor time, so that no grammar fails because the machine is busy. A compile takes milliseconds, a slow one of a benchmark's 11,000 schemas a second. */
const DEADLINE_MS = 3000;
/** Of time, for a process that gets no processor. */
const ANSWER_DEADLINE_MS = 10_000;
/** Of processor time. What takes longer is given up as soon as others wait for its process. */
const FAIR_MS = 500;
/** How long a grammar may wait for a process. */
const WAIT_MS = 15_000;
const POLL_MS = 20;
/** Reading the vocabulary of a large model takes a second or two, and more on a busy machine. */
const START_DEADLINE_MS = 30_000;
/** Of processor time. What takes longer goes on at the lowest priority. */
const SLOW_MS = 300;
const RETRY_AFTER_SECONDS = 5;
/** Grammars that need no second trial. */
const MAX_PASSED = 1024;

export interface TrialLimits {
  maxProcesses: number;
  /** Processor time of a compile. */
  deadlineMs: number;
  /** Processor time of one that others wait for. */
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
        const [longest] = [...this.running].sort((a, b) => b.spentMs - a.spentMs);
        if (longest!.spentMs > fairMs) longest!.kill();
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
  /** Processor time of the compile that is running, as far as it is known. */
  spentMs = 0;
  private wasKilled = false;
  private readonly child: Subprocess<'pipe', 'pipe', 'ignore'>;
  private readonly answers: AsyncIterator<TrialAnswer>;
  /** The vocabulary has been read. */
  private hasStarted = false;

  /** Throws Error where it can't be started. */
  constructor(vocabulary: GuidanceVocabulary) {
    this.child = Bun.spawn(trialCommand(), { stdin: 'pipe', stdout: 'pipe', stderr: 'ignore' });
    // It ends with this process, and must not keep it.
    this.child.unref();
    this.answers = readAnswers(this.child.stdout);
    this.send(vocabulary);
  }

  /** null: it compiles. */
  async compile(spec: GrammarSpec, deadlineMs: number): Promise<string | null> {
    if (!this.hasStarted && (await this.resultWithin(START_DEADLINE_MS)) === undefined) {
      return 'the grammar engine has not started';
    }
    this.hasStarted = true;
    const began = performance.now();
    this.send(spec);
    const message = await this.resultWithin(ANSWER_DEADLINE_MS, (spentMs) => {
      if (this.spentMs <= SLOW_MS && spentMs > SLOW_MS) this.yieldToOthers();
      this.spentMs = spentMs;
      if (spentMs > deadlineMs) this.kill();
    });
    this.spentMs = 0;
    if (message !== undefined) return message;
    const seconds = (performance.now() - began) / 1000;
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

  /** undefined: the process has ended, or is killed since the time is up. */
  private async resultWithin(timeoutMs: number, onSpent = (_ms: number) => {}): Promise<string | null | undefined> {
    const deadline = setTimeout(() => this.kill(), timeoutMs);
    try {
      for (let next = await this.answers.next(); !next.done; next = await this.answers.next()) {
        if ('message' in next.value) return next.value.message;
        onSpent(next.value.spentMs);
      }
      this.isAlive = false;
      return undefined;
    } finally {
      clearTimeout(deadline);
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

async function* readAnswers(stdout: ReadableStream<Uint8Array>): AsyncGenerator<TrialAnswer> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of stdout) {
    const lines = (text + decoder.decode(bytes, { stream: true })).split('\n');
    text = lines.pop()!;
    for (const line of lines) yield JSON.parse(line) as TrialAnswer;
  }
}

/** This program once more: from its source, or the executable that has it inside. */
function trialCommand(): string[] {
  const main = join(PACKAGE_ROOT, 'src/main.ts');
  return [process.execPath, ...(existsSync(main) ? [main] : []), 'grammar-trials'];
}
