import type { Request } from '../../src/scheduler/request.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { SchedulerOptions } from '../../src/scheduler/scheduler-options.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { FakeWorker } from './fake-worker.ts';
import { DEFAULT_OPTIONS, kvConfig } from './fixtures.ts';

/** A scheduler and the worker that carries out its steps. */
export interface Machine {
  scheduler: Scheduler;
  worker: FakeWorker;
}

/** Blocks of 4 tokens, by default more than enough. */
export function machine(options: Partial<SchedulerOptions> = {}, numBlocks = 200, windows = [0]): Machine {
  const config = kvConfig(numBlocks, 4, windows);
  const all = { ...DEFAULT_OPTIONS, ...options };
  return { scheduler: new Scheduler(all, config), worker: new FakeWorker(config, all.maxNumSeqs) };
}

export function add(scheduler: Scheduler, ...requests: Request[]): void {
  for (const request of requests) scheduler.addRequest(request);
}

/** Schedules and runs one step, and takes its result in. */
export function step({ scheduler, worker }: Machine): { scheduled: SchedulerOutput; result: ModelRunnerOutput } {
  const scheduled = scheduler.schedule();
  const result = worker.execute(scheduled);
  scheduler.updateFromOutput(scheduled, result);
  return { scheduled, result };
}

/** Key to tokens scheduled. */
export function amounts(scheduled: SchedulerOutput): [number, number][] {
  const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
  return entries.map(({ key, numScheduledTokens }) => [key, numScheduledTokens]);
}

/** The tokens that it has been given. */
export const output = (request: Request) => [...request.tokenIds.subarray(request.numPromptTokens)];

/** Until no request is left, with so many steps in flight. */
export function runToEnd({ scheduler, worker }: Machine, depth: number): void {
  const inFlight: { scheduled: SchedulerOutput; result: ModelRunnerOutput }[] = [];
  while (scheduler.hasRequests() || inFlight.length > 0) {
    const scheduled = scheduler.schedule();
    if (scheduled.totalNumScheduledTokens > 0) inFlight.push({ scheduled, result: worker.execute(scheduled) });
    if (inFlight.length < depth && scheduled.totalNumScheduledTokens > 0) continue;
    const oldest = inFlight.shift();
    if (oldest !== undefined) scheduler.updateFromOutput(oldest.scheduled, oldest.result);
  }
}

/** The result of a step in which every request samples token 3. */
export function allSampled(scheduled: SchedulerOutput): ModelRunnerOutput {
  const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
  return {
    keys: entries.map(({ key }) => key),
    sampledTokenIds: entries.map(() => [3]),
    logprobs: entries.map(() => null),
    promptLogprobs: entries.map(() => null),
    failures: [],
  };
}
