import { engineTimeoutMs } from '../config/engine-variables.ts';
import { type CoreState, MAX_IDLE_MS } from './core-status.ts';
import type { CoreHandle } from './launch-core-engines.ts';

export interface EngineWatchOptions {
  /** A busy core whose loop has not turned for so long is stuck in a step. */
  loopTimeoutMs: number;
  /** Running requests that have computed no token for so long are stuck in the scheduler. */
  progressTimeoutMs: number;
  intervalMs: number;
}

/** As the operator's environment has them. Throws UsageError. */
export function watchOptionsFromEnv(env: NodeJS.ProcessEnv = process.env): EngineWatchOptions {
  return {
    loopTimeoutMs: engineTimeoutMs('BAO_ENGINE_STEP_TIMEOUT_S', env),
    progressTimeoutMs: engineTimeoutMs('BAO_ENGINE_PROGRESS_TIMEOUT_S', env),
    intervalMs: 500,
  };
}

/** States in which a core's loop must turn. One that has nothing to do still looks around, `MAX_IDLE_MS` at the latest. */
const TURNING: readonly CoreState[] = ['idle', 'busy', 'sleeping'];

/** What was seen last, and for how long. */
interface Observation {
  loopTurns: number;
  loopMs: number;
  progress: number;
  progressMs: number;
}

/**
 * Watches three things that fail apart: the core lives, its loop turns, and running requests make progress.
 * `onFailure` is called once, with the first core's reason.
 */
export class EngineWatch {
  private readonly observations: Observation[];
  private timer: ReturnType<typeof setInterval> | null = null;
  private failed = false;
  private checkedMs = performance.now();

  constructor(
    private readonly cores: readonly CoreHandle[],
    private readonly options: EngineWatchOptions,
    private readonly onFailure: (reason: string) => void,
  ) {
    this.observations = cores.map(({ status }) => ({
      loopTurns: status.loopTurns,
      loopMs: 0,
      progress: status.progress,
      progressMs: 0,
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
    // A process that was stopped for a while has not been hanging: of a long silence no more counts than the watch could have seen.
    const elapsedMs = Math.min(nowMs - this.checkedMs, 2 * this.options.intervalMs);
    this.checkedMs = nowMs;
    this.cores.forEach((core, i) => {
      const reason = this.look(core, this.observations[i]!, elapsedMs);
      if (reason !== null) this.fail(`Engine core ${core.coreIndex} ${reason}`);
    });
  }

  private look({ status }: CoreHandle, seen: Observation, elapsedMs: number): string | null {
    const { loopTurns, progress, numRunning, state } = status;
    const turns = loopTurns !== seen.loopTurns || !TURNING.includes(state);
    // With requests that run, a core is idle or sleeping only when it has been paused.
    const isGettingOn = progress !== seen.progress || numRunning === 0 || state !== 'busy';
    seen.loopTurns = loopTurns;
    seen.loopMs = turns ? 0 : seen.loopMs + elapsedMs;
    seen.progress = progress;
    seen.progressMs = isGettingOn ? 0 : seen.progressMs + elapsedMs;

    const loopTimeoutMs = this.options.loopTimeoutMs + (state === 'busy' ? 0 : MAX_IDLE_MS);
    if (seen.loopMs > loopTimeoutMs) {
      return `is stuck: its loop has not turned for ${Math.round(seen.loopMs / 1000)} s`;
    }
    if (seen.progressMs > this.options.progressTimeoutMs) {
      return `makes no progress: ${numRunning} running requests got no token for ${Math.round(seen.progressMs / 1000)} s`;
    }
    return null;
  }

  private fail(reason: string): void {
    if (this.failed) return;
    this.stop();
    this.onFailure(reason);
  }
}
