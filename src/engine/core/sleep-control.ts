import type { Executor } from '../../executor/executor.ts';
import { logger } from '../../logging/logger.ts';
import type { PauseState, SchedulerInterface } from '../../scheduler/scheduler-interface.ts';
import { MEMORY_TAGS, type MemoryTag } from '../../worker/memory-tags.ts';
import type { SleepLevel, SleepMode, WakeTag } from '../messages.ts';

const log = logger('core');

/** Told when a call has been carried out, or why it could not be. */
export type Reply = (error: string | null) => void;

interface Transition {
  /** Whether nothing is left that must end before. */
  isReady(): boolean;
  run(): Promise<void> | void;
  reply: Reply;
  /** What it makes of the scheduler from the call on; null: nothing. */
  pauseState: PauseState | null;
}

/**
 * Puts a core to sleep and wakes it. The scheduler is paused at once, so that requests which come wait in the queue; memory changes hands
 * between two steps, when the busy loop calls `proceed`.
 */
export class SleepControl {
  /** How deep the core sleeps; null: it is awake. */
  level: SleepLevel | null = null;
  private readonly asleep = new Set<WakeTag>();
  private readonly transitions: Transition[] = [];

  /** @param abortAll ends every request that waits or runs */
  constructor(
    private readonly executor: Pick<Executor, 'sleep' | 'wakeUp'>,
    private readonly scheduler: SchedulerInterface,
    private readonly abortAll: () => void,
  ) {}

  /** Level 0 stops scheduling; levels 1 and 2 also free weights and KV cache. What runs is aborted, finished first, or kept: computed anew after waking. */
  sleep(level: SleepLevel, mode: SleepMode, reply: Reply): void {
    const pauseState = mode === 'wait' ? 'paused-new' : 'paused-all';
    if (this.level === null) this.scheduler.pauseState = pauseState;
    if (mode === 'abort') this.abortAll();
    this.transitions.push({
      // Who asked for another mode meanwhile has stopped what was waited for.
      isReady: () =>
        mode !== 'wait' ||
        this.level !== null ||
        this.scheduler.pauseState === 'paused-all' ||
        this.scheduler.numStarted === 0,
      run: () => this.fallAsleep(level),
      reply,
      pauseState,
    });
  }

  /** Undoes `sleep` for the tags; with the last of them requests are scheduled again. */
  wakeUp(tags: readonly WakeTag[], reply: Reply): void {
    this.transitions.push({ isReady: () => true, run: () => this.wake(tags), reply, pauseState: null });
  }

  /** Whether `proceed` has something to do, when no step is in flight. */
  get isDue(): boolean {
    return this.transitions[0]?.isReady() ?? false;
  }

  /** Carries out the oldest call. Its failure is its caller's to hear of: the core sleeps on. */
  async proceed(): Promise<void> {
    const { run, reply } = this.transitions.shift()!;
    try {
      await run();
    } catch (error) {
      log.error(`The core sleeps on: ${error instanceof Error ? error.message : error}`);
      reply(error instanceof Error ? error.message : String(error));
      return;
    }
    reply(null);
  }

  private fallAsleep(level: SleepLevel): void {
    this.scheduler.pauseState = 'paused-all';
    if (level === 0) {
      if (this.level !== null) return;
      this.level = 0;
      this.asleep.add('scheduling');
      return;
    }
    // What is in the cache goes, and with it what running requests have there.
    this.scheduler.resetPrefixCache(true);
    if (this.level === null || this.level === 0) this.executor.sleep();
    this.level = level;
    for (const tag of MEMORY_TAGS) this.asleep.add(tag);
  }

  private async wake(tags: readonly WakeTag[]): Promise<void> {
    const memory = tags.filter((tag): tag is MemoryTag => tag !== 'scheduling' && this.asleep.has(tag));
    if (memory.length > 0) await this.executor.wakeUp(memory);
    for (const tag of tags) this.asleep.delete(tag);
    const sleepsOn = MEMORY_TAGS.some((tag) => this.asleep.has(tag));
    // Scheduling comes back with the last of the memory.
    if (sleepsOn || (this.level === 0 && this.asleep.has('scheduling'))) return;
    this.asleep.clear();
    this.level = null;
    // Who has asked for sleep since keeps the pause.
    this.scheduler.pauseState =
      this.transitions.findLast(({ pauseState }) => pauseState !== null)?.pauseState ?? 'unpaused';
  }
}
