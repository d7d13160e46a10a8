import type { CoreHandle } from './launch-core-engines.ts';

export interface EngineWatchOptions {
  /** A busy core whose loop has not turned for so long is stuck in a step. */
  loopTimeoutMs: number;
  /** Running requests that have computed no token for so long are stuck in the scheduler. */
  progressTimeoutMs: number;
  intervalMs: number;
}

/** Seconds that the operator set, or the default, in milliseconds. */
export function watchOptionsFromEnv(env: NodeJS.ProcessEnv = process.env): EngineWatchOptions {
  const seconds = (name: string, fallback: number) => Number(env[name] ?? fallback) * 1000;
  return {
    loopTimeoutMs: seconds('BAO_ENGINE_STEP_TIMEOUT_S', 300),
    progressTimeoutMs: seconds('BAO_ENGINE_PROGRESS_TIMEOUT_S', 300),
    intervalMs: 500,
  };
}

interface Observation {
  loopTurns: number;
  loopSinceMs: number;
  progress: number;
  progressSinceMs: number;
}

/**
 * Watches three things that fail apart: the core lives, its loop turns, and running requests make progress.
 * `onFailure` is called once, with the first core's reason.
 */
export class EngineWatch {
  private readonly observations: Observation[];
  private timer: ReturnType<typeof setInterval> | null = null;
  private failed = false;

  constructor(
    private readonly cores: readonly CoreHandle[],
    private readonly options: EngineWatchOptions,
    private readonly onFailure: (reason: string) => void,
  ) {
    const now = performance.now();
    this.observations = cores.map(({ status }) => ({
      loopTurns: status.loopTurns,
      loopSinceMs: now,
      progress: status.progress,
      progressSinceMs: now,
    }));
  }

  start(): void {
    for (const core of this.cores) {
      core.ended.then((reason) => {
        if (reason !== null) this.fail(`Engine core ${core.coreIndex} died: ${reason}`);
      });
    }
    this.timer = setInterval(() => this.check(performance.now()), this.options.intervalMs);
    this.timer.unref();
  }

  stop(): void {
    this.failed = true;
    if (this.timer !== null) clearInterval(this.timer);
  }

  /** One look at every core. `nowMs` is a monotonic clock. */
  check(nowMs: number): void {
    this.cores.forEach((core, i) => {
      const reason = this.look(core, this.observations[i]!, nowMs);
      if (reason !== null) this.fail(`Engine core ${core.coreIndex} ${reason}`);
    });
  }

  private look({ status }: CoreHandle, seen: Observation, nowMs: number): string | null {
    const { loopTurns, progress, numRunning, state } = status;
    // With requests that run a core is idle only when it has been paused.
    const isBusy = state === 'busy';
    if (loopTurns !== seen.loopTurns || !isBusy) {
      seen.loopTurns = loopTurns;
      seen.loopSinceMs = nowMs;
    }
    if (progress !== seen.progress || numRunning === 0 || !isBusy) {
      seen.progress = progress;
      seen.progressSinceMs = nowMs;
    }
    if (nowMs - seen.loopSinceMs > this.options.loopTimeoutMs) {
      return `is stuck: its loop has not turned for ${Math.round((nowMs - seen.loopSinceMs) / 1000)} s`;
    }
    if (nowMs - seen.progressSinceMs > this.options.progressTimeoutMs) {
      return `makes no progress: ${numRunning} running requests got no token for ${Math.round((nowMs - seen.progressSinceMs) / 1000)} s`;
    }
    return null;
  }

  private fail(reason: string): void {
    if (this.failed) return;
    this.stop();
    this.onFailure(reason);
  }
}
