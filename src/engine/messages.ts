import type { LoRARequest } from '../lora/lora-request.ts';
import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import type { FinishReason, RequestFailure } from '../scheduler/finish-reason.ts';
import type { SchedulerCounters } from '../scheduler/scheduler-interface.ts';
import type { MemoryTag } from '../worker/memory-tags.ts';

/** Every type that crosses a Worker boundary. The codec is in `codec.ts`. */

/** Client → core: one sequence to generate or to pool (n > 1 is fanned out by the client, the copies share their prompt through the prefix cache). */
export interface EngineCoreRequest {
  /** u32 chosen by the client, unique among its live requests; answers carry it instead of the id. */
  handle: number;
  /** Which of the n sequences of its request it is; the seed of each is the request's and this together. */
  sequenceIndex: number;
  /** For logs and traces. */
  requestId: string;
  promptTokenIds: Int32Array;
  samplingParams: SamplingParams;
  /** Set for a request that is pooled; its samplingParams are then POOLING_SAMPLING_PARAMS. */
  poolingParams: PoolingParams | null;
  /** Ids that end the text unless `ignoreEos`. */
  eosTokenIds: number[];
  /** Milliseconds since the epoch. */
  arrivalTimeMs: number;
  /** Lower is sooner (`--scheduling-policy priority`). */
  priority: number;
  cacheSalt: string | null;
  /** null: the base model. */
  lora: LoRARequest | null;
}

export interface AbortMessage {
  handles: number[];
}

/** Client → core: a call by name (`resetPrefixCache`, `stats`, …); arguments and result are JSON. */
export interface UtilityCall {
  callId: number;
  method: string;
  argsJson: string;
}

/** 0: nothing is scheduled; 1 and 2: weights and KV cache are freed too. Both read the weights from the checkpoint again. */
export const SLEEP_LEVELS = [0, 1, 2] as const;
export type SleepLevel = (typeof SLEEP_LEVELS)[number];

/** What happens to running requests when the engine is put to sleep: aborted, finished first, or kept and computed anew. */
export const SLEEP_MODES = ['abort', 'wait', 'keep'] as const;
export type SleepMode = (typeof SLEEP_MODES)[number];

/** What can be woken by itself. */
export type WakeTag = MemoryTag | 'scheduling';

export interface UtilityResult {
  callId: number;
  /** null on success. */
  error: string | null;
  resultJson: string;
}

/** Core → client: what one step did for one request. */
export interface EngineCoreOutput {
  handle: number;
  newTokenIds: number[];
  newLogprobs: LogprobsTensors | null;
  /** Positions 1.. of the prompt, in order; several pieces when the prompt was chunked. */
  newPromptLogprobs: LogprobsTensors | null;
  /** The answer to a request that is pooled; it ends with it. */
  poolerOutput: PoolerOutput | null;
  finishReason: FinishReason | null;
  /** The stop token id that ended it, if one did and it is not EOS. */
  stopReason: number | null;
  /** Prompt tokens found in the prefix cache; valid with the first output. */
  numCachedTokens: number;
  /** Set on the first output: when the request was first scheduled, milliseconds since the epoch; 0 otherwise. */
  firstScheduledMs: number;
  numPreemptions: number;
  /** With the finish reason `error`. */
  failure: RequestFailure | null;
}

/** Counters of a core, sent with outputs at most a few times a second. Totals count since start. */
export interface SchedulerStats extends SchedulerCounters {
  /** Those of the waiting that could not run now whatever was free: their grammars are being compiled, or the engine sleeps. */
  numDeferred: number;
  /** How deep the engine sleeps (0, 1, 2); -1: it is awake. */
  sleepLevel: number;
  numSteps: number;
  /** Tokens computed by all steps, prompt and generation. */
  numScheduledTokens: number;
  /** Time of steps so far and the part of it spent outside the device (schedule, build, update), milliseconds. */
  stepMs: number;
  hostMs: number;
  /** What the steps so far have taken on one device; 0 without `--enable-mfu-metrics`. */
  estimatedFlops: number;
  estimatedReadBytes: number;
  estimatedWriteBytes: number;
}

export interface EngineCoreOutputs {
  /** When the step ended, milliseconds since the epoch. */
  timestampMs: number;
  outputs: EngineCoreOutput[];
  /** Tokens of the step (for `iteration_tokens_total`). */
  numStepTokens: number;
  stats: SchedulerStats | null;
}

export type ClientMessage =
  | { type: 'add'; request: EngineCoreRequest }
  | { type: 'abort'; abort: AbortMessage }
  | { type: 'utility'; call: UtilityCall };

export type CoreMessage =
  | { type: 'outputs'; outputs: EngineCoreOutputs }
  | { type: 'utility-result'; result: UtilityResult };
