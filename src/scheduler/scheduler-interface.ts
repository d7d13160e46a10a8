import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { DraftCounts } from './draft-counter.ts';
import type { FinishReason, RequestFailure } from './finish-reason.ts';
import type { Request } from './request.ts';
import type { DraftTokens, ModelRunnerOutput, SchedulerOutput } from './scheduler-output.ts';

/** What a step did for one request. */
export interface RequestUpdate {
  request: Request;
  /** Tokens that the request keeps; those behind a stop are dropped. */
  newTokenIds: number[];
  /** Of `newTokenIds`. */
  newLogprobs: LogprobsTensors | null;
  /** Prompt positions that no update before had, in order. */
  newPromptLogprobs: LogprobsTensors | null;
  /** Of a request that is pooled: it ends with it. */
  poolerOutput: PoolerOutput | null;
  /** null while it goes on. A finished request is forgotten by the scheduler. */
  finishReason: FinishReason | null;
  /** The stop token id that ended it, if one did and it is not EOS. */
  stopReason: number | null;
  /** With the finish reason `error`. */
  failure: RequestFailure | null;
  /** The request's first update. */
  isFirst: boolean;
}

/** The scheduler's counters. Totals count since start. */
export interface SchedulerCounters extends DraftCounts {
  numRunning: number;
  numWaiting: number;
  /** 0..1 */
  kvCacheUsage: number;
  prefixCacheQueries: number;
  prefixCacheHits: number;
  numPreemptions: number;
  /** Names of adapters that running and waiting requests have, sorted. */
  runningLoraAdapters: string[];
  waitingLoraAdapters: string[];
}

/** What a step may hold: anything, only requests that have started, nothing. Names are vLLM's. */
export type PauseState = 'unpaused' | 'paused-new' | 'paused-all';

/**
 * Decides which request gets how many tokens in a step. Events in, decisions out: no clock, no randomness, no device.
 *
 * `schedule` may be called again before the update of the step before it (async scheduling); updates come in the order of the schedules.
 */
export interface SchedulerInterface {
  /** Takes a request in. Throws RangeError for a prompt that is empty or longer than maxModelLen. */
  addRequest(request: Request): void;
  /**
   * Ends requests from outside (abort, error): their blocks are free at once, results of steps in flight are dropped, no update follows.
   * Unknown keys are ignored.
   */
  finishRequests(keys: readonly number[], reason: FinishReason): void;
  /**
   * The next step. With nothing to compute `totalNumScheduledTokens` is 0; `releasedKeys` must reach the worker all the same.
   *
   * @param held requests that must not sample in it, since what they may sample is not known yet. Default: none
   */
  schedule(held?: ReadonlySet<number>): SchedulerOutput;
  /** Takes a step's results in; one update for each request that has something new. */
  updateFromOutput(scheduled: SchedulerOutput, result: ModelRunnerOutput): RequestUpdate[];
  /** Drafts for the next step of requests that run; those of others are ignored. */
  updateDraftTokens(drafts: readonly DraftTokens[]): void;
  /** True while a request waits or runs. */
  hasRequests(): boolean;
  /** Those that wait or run. */
  unfinishedRequests(): Request[];
  pauseState: PauseState;
  /** Whether a step might hold something: false while what is there is paused. */
  canSchedule(): boolean;
  readonly numRunning: number;
  readonly numWaiting: number;
  /** Those that run, and those that have run and were preempted. */
  readonly numStarted: number;
  /** 0..1 */
  readonly kvCacheUsage: number;
  /**
   * Forgets all cached prefixes; false, and nothing done, while blocks are in use.
   *
   * @param resetRunningRequests running requests are preempted, so that no block is: they are computed anew
   */
  resetPrefixCache(resetRunningRequests?: boolean): boolean;
  stats(): SchedulerCounters;
}
