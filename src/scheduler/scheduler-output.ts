import type { LoRARequest } from '../lora/lora-request.ts';
import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';

/** A request that the worker does not hold: new, or back after a preemption (then `tokenIds` has its output too). */
export interface NewRequestData {
  /** The core's own number of the request. */
  key: number;
  requestId: string;
  /** Prompt and, after a preemption, output. */
  tokenIds: Int32Array;
  numPromptTokens: number;
  samplingParams: SamplingParams;
  poolingParams: PoolingParams | null;
  eosTokenIds: number[];
  /** Seed of every draw, fixed when the request entered the core. */
  seed: bigint;
  /** null: the base model. */
  lora: LoRARequest | null;
  /** Block ids by KV cache group, covering what this step computes. */
  blockIds: number[][];
  /** Tokens whose keys and values are in the cache already. */
  numComputedTokens: number;
  numScheduledTokens: number;
}

/** A request that the worker holds. */
export interface CachedRequestData {
  key: number;
  /** Blocks to append, by KV cache group. */
  newBlockIds: number[][];
  numComputedTokens: number;
  numScheduledTokens: number;
  /** Draft tokens to verify behind the last known token; empty without speculation. */
  specTokenIds: number[];
}

/** One step's work: plain data, so that it can cross to workers in other threads. Order: as scheduled, running requests before new ones. */
export interface SchedulerOutput {
  newRequests: NewRequestData[];
  cachedRequests: CachedRequestData[];
  totalNumScheduledTokens: number;
  /** Requests to forget, finished, aborted or preempted since the step before; they may come back as new. */
  releasedKeys: number[];
  /** Which tokens the grammars of this step's rows allow; null: no row that samples has one. */
  grammarBitmask: GrammarBitmask | null;
  /** What requests must sample in this step, whatever the model thinks of it. */
  forcedTokens: { key: number; tokenId: number }[];
  /** Custom logits processors look at this step's logits: `execute` waits until they are computed. */
  waitsForLogits: boolean;
}

export interface GrammarBitmask {
  /** The requests, one a row of `words`. */
  keys: number[];
  wordsPerRow: number;
  /** [keys.length, wordsPerRow]; bit i % 32 of word i / 32 is set where token i is allowed. */
  words: Int32Array;
}

/** Draft tokens proposed for a request, to be verified in its next step. */
export interface DraftTokens {
  key: number;
  tokenIds: number[];
}

/** What a step gave: entry i belongs to `keys[i]`, which are the requests of the SchedulerOutput, cached ones first. */
export interface ModelRunnerOutput {
  keys: number[];
  /** Empty where the prompt is not all computed yet; else the drafts that hold, and the token behind them. */
  sampledTokenIds: number[][];
  logprobs: (LogprobsTensors | null)[];
  promptLogprobs: (LogprobsTensors | null)[];
  /** Requests that can't go on, with what to tell the client; what they sampled counts for nothing. */
  failures: { key: number; message: string }[];
  /** null where the prompt is not all computed yet; absent where the model generates. */
  poolerOutputs?: (PoolerOutput | null)[];
  /** What a draft model thinks comes next; absent where there is none. */
  draftTokens?: DraftTokens[];
}
