import { BlockHashes } from '../kv-cache/block-hashes.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import type { FinishReason } from './finish-reason.ts';
import { RepetitionDetector } from './repetition-detector.ts';
import { ThinkingBudget } from './thinking-budget.ts';

/** `preempted` is waiting again after it lost its blocks. A finished request carries its reason, the others have none. */
export type RequestStatus = 'waiting' | 'running' | 'preempted' | `finished-${FinishReason}`;

export interface RequestInit {
  /** The core's own number, never used again. */
  key: number;
  /** Which client of the core sent it, and the client's number for it. */
  clientIndex: number;
  handle: number;
  /** For logs and traces. */
  requestId: string;
  promptTokenIds: Int32Array;
  samplingParams: SamplingParams;
  /** Of a request that is pooled. Default null. */
  poolingParams?: PoolingParams | null;
  /** Ids that end the text unless `ignoreEos`. */
  eosTokenIds: number[];
  /** Seed of every draw. */
  seed: bigint;
  /** Milliseconds since the epoch; orders requests of equal priority. */
  arrivalTimeMs: number;
  /** Lower is sooner. */
  priority: number;
  cacheSalt: string | null;
  /** null: the base model. */
  lora: LoRARequest | null;
  /** What the model adds to every position (see CausalLM.positionOffset): keys of different offsets differ. Default 0. */
  positionOffset?: number;
}

/** Room for output before the token array grows. */
const INITIAL_OUTPUT_TOKENS = 32;

/**
 * One sequence in the core. The scheduler owns its mutable fields; there is no prefill phase: a request is computed until
 * `numComputedTokens` has caught up with its tokens, and samples in the step that catches up.
 */
export class Request {
  readonly key: number;
  readonly clientIndex: number;
  readonly handle: number;
  readonly requestId: string;
  readonly samplingParams: SamplingParams;
  readonly poolingParams: PoolingParams | null;
  readonly eosTokenIds: number[];
  readonly seed: bigint;
  readonly arrivalTimeMs: number;
  readonly priority: number;
  readonly cacheSalt: string | null;
  readonly lora: LoRARequest | null;
  readonly numPromptTokens: number;
  readonly blockHashes: BlockHashes;

  status: RequestStatus = 'waiting';
  /** Tokens whose keys and values are in the cache, or will be once the steps in flight are done. */
  numComputedTokens = 0;
  /** Tokens of the first admission found in the prefix cache; -1 before it. */
  numCachedTokens = -1;
  /** Tokens that steps in flight will sample: their places are taken, their ids not known yet. */
  numOutputPlaceholders = 0;
  /** Draft tokens to verify in the next step, behind the last known token. */
  specTokenIds: number[] = [];
  /** Draft tokens in a step in flight; until its update nobody knows how many of them stay. */
  numSpecTokensInFlight = 0;
  numPreemptions = 0;
  /** Requests that were admitted before it although it was first in order. */
  numOvertakings = 0;
  /** Prompt positions, from 1, whose log probabilities the client has. */
  numPromptLogprobsSent = 0;
  /** An update of this request has been given out. */
  hasOutput = false;
  /** null: its thinking has no limit. */
  readonly thinkingBudget: ThinkingBudget | null;
  /** null: it is not looked for repetitions. */
  readonly repetition: RepetitionDetector | null;
  /** Order of arrival in the scheduler and place in its waiting queue (-1: not there). Only the scheduler and the queue touch them. */
  sequence = 0;
  queueIndex = -1;

  private tokens: Int32Array;
  private length: number;

  constructor(init: RequestInit) {
    this.key = init.key;
    this.clientIndex = init.clientIndex;
    this.handle = init.handle;
    this.requestId = init.requestId;
    this.samplingParams = init.samplingParams;
    this.poolingParams = init.poolingParams ?? null;
    this.eosTokenIds = init.eosTokenIds;
    this.seed = init.seed;
    this.arrivalTimeMs = init.arrivalTimeMs;
    this.priority = init.priority;
    this.cacheSalt = init.cacheSalt;
    this.lora = init.lora;
    this.numPromptTokens = init.promptTokenIds.length;
    this.length = this.numPromptTokens;
    this.tokens = new Int32Array(this.length + Math.min(init.samplingParams.maxTokens, INITIAL_OUTPUT_TOKENS));
    this.tokens.set(init.promptTokenIds);
    const { thinkingBudget, repetitionDetection } = init.samplingParams;
    this.thinkingBudget = thinkingBudget === null ? null : new ThinkingBudget(thinkingBudget);
    this.repetition = repetitionDetection === null ? null : new RepetitionDetector(repetitionDetection);
    this.blockHashes = new BlockHashes({
      loraId: init.lora?.id ?? null,
      cacheSalt: init.cacheSalt,
      positionOffset: init.positionOffset ?? 0,
    });
  }

  /** Known tokens, prompt and output. */
  get numTokens(): number {
    return this.length;
  }

  get numOutputTokens(): number {
    return this.length - this.numPromptTokens;
  }

  /** Prompt, then output: a view that is valid until the next append. */
  get tokenIds(): Int32Array {
    return this.tokens.subarray(0, this.length);
  }

  get lastTokenId(): number {
    return this.tokens[this.length - 1]!;
  }

  get finishReason(): FinishReason | null {
    return this.isFinished ? (this.status.slice('finished-'.length) as FinishReason) : null;
  }

  get isFinished(): boolean {
    return this.status.startsWith('finished-');
  }

  appendToken(tokenId: number): void {
    if (this.length === this.tokens.length) {
      const grown = new Int32Array(this.length * 2);
      grown.set(this.tokens);
      this.tokens = grown;
    }
    this.tokens[this.length++] = tokenId;
    this.thinkingBudget?.push(tokenId);
    this.repetition?.push(this.tokens.subarray(this.numPromptTokens, this.length));
  }
}
