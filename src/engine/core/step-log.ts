import { logger } from '../../logging/logger.ts';
import type { SchedulerCounters } from '../../scheduler/scheduler-interface.ts';
import type { SchedulerOutput } from '../../scheduler/scheduler-output.ts';

const log = logger('core');

export interface StepLogOptions {
  /** A line for each step, as vLLM's `--enable-logging-iteration-details`. */
  logsAll: boolean;
  /** Steps that take longer get a warning; null: none does. */
  slowStepMs: number | null;
}

/** Tells of steps: of each one, or of those that take long, with what they were made of. */
export class StepLog {
  private numSteps = 0;

  constructor(private readonly options: StepLogOptions) {}

  /** @param elapsedMs between the results of the step before and this one's, or since it was enqueued where that is less */
  note(scheduled: SchedulerOutput, elapsedMs: number, counters: () => SchedulerCounters): void {
    const step = this.numSteps++;
    const { logsAll, slowStepMs } = this.options;
    const isSlow = slowStepMs !== null && elapsedMs > slowStepMs;
    if (!logsAll && !isSlow) return;
    const load = describeLoad(scheduled);
    if (logsAll) log.info(`Iteration(${step}): ${load}, iteration elapsed time: ${elapsedMs.toFixed(2)} ms`);
    if (!isSlow) return;
    const { numRunning, numWaiting, kvCacheUsage, numPreemptions } = counters();
    log.warn(
      `Slow step ${step}: ${(elapsedMs / 1000).toFixed(2)} s for ${load}; running ${numRunning}, waiting ${numWaiting}, KV cache ${(kvCacheUsage * 100).toFixed(1)}%, ${numPreemptions} preemptions so far`,
    );
  }
}

/** Who has just joined, or computes several tokens, is at its prompt. */
function describeLoad({ newRequests, cachedRequests }: SchedulerOutput): string {
  const chunks = cachedRequests.filter(
    ({ numScheduledTokens, specTokenIds }) => numScheduledTokens > 1 + specTokenIds.length,
  );
  const context = [...newRequests, ...chunks];
  const contextTokens = sumTokens(context);
  const generationTokens = sumTokens(cachedRequests) - sumTokens(chunks);
  const numGenerating = cachedRequests.length - chunks.length;
  return `${context.length} context requests, ${contextTokens} context tokens, ${numGenerating} generation requests, ${generationTokens} generation tokens`;
}

function sumTokens(rows: readonly { numScheduledTokens: number }[]): number {
  return rows.reduce((sum, { numScheduledTokens }) => sum + numScheduledTokens, 0);
}
