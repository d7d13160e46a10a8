import type { LoRASlot } from '../lora/lora-batch.ts';
import { LoRALoadError } from '../lora/lora-error.ts';
import type { LoRAManager } from '../lora/lora-manager.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { Model } from '../models/model.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import { RequestLogitsProcessors } from '../sampling/request-logits-processors.ts';
import { prepareSampling, type SamplingRequest, topLogprobs } from '../sampling/sampling-request.ts';
import type { NewRequestData } from '../scheduler/scheduler-output.ts';

/** Block ids of one request in one KV cache group. */
export class BlockTable {
  private ids = new Int32Array(16);
  length = 0;

  append(blockIds: readonly number[]): void {
    const needed = this.length + blockIds.length;
    if (needed > this.ids.length) {
      const grown = new Int32Array(Math.max(needed, this.ids.length * 2));
      grown.set(this.ids.subarray(0, this.length));
      this.ids = grown;
    }
    for (const id of blockIds) this.ids[this.length++] = id;
  }

  at(index: number): number {
    return this.ids[index]!;
  }

  view(): Int32Array {
    return this.ids.subarray(0, this.length);
  }
}

/** What the worker keeps of a request while it runs. */
export interface RequestState {
  readonly key: number;
  /** Row of the token table. */
  readonly slot: number;
  readonly numPromptTokens: number;
  /** Tokens in the token table, those of steps in flight included. */
  numTokens: number;
  /** Of a draft model: most drafts of the next step; null before the first ones were verified. */
  draftLength: number | null;
  /** Of a draft model: tokens whose keys and values it has in the cache. */
  numDraftComputed: number;
  /** Added to its positions for the rotary embedding (CausalLM.positionOffset). */
  readonly positionOffset: number;
  /** By KV cache group. */
  readonly blockTables: BlockTable[];
  /** null: the base model. */
  readonly lora: (LoRASlot & { id: number }) | null;
  /** Why it can't run as it should: its adapter could not be read. What it computes is of no use. */
  readonly error: string | null;
  readonly sampling: SamplingRequest;
  /** A grammar, and logits processors, would have to follow each draft: their requests get none. */
  readonly takesDrafts: boolean;
  /** null: none apply to it. */
  readonly logitsProcessors: RequestLogitsProcessors | null;
  /** Best tokens wanted for each prompt position; -1: no prompt log probabilities. */
  readonly promptTopLogprobs: number;
  /** The prompt, kept only for its log probabilities. */
  readonly promptTokenIds: Int32Array | null;
  /** null: the request generates. */
  readonly pooling: PoolingParams | null;
  /** What has been pooled of its tokens, [rows, width] each, until it is complete. */
  readonly pooledPieces: Float32Array[];
}

/** The persistent batch: requests that the worker holds, each with a row of the token table. */
export class InputBatch {
  private readonly requests = new Map<number, RequestState>();
  private readonly freeSlots: number[];

  constructor(
    maxNumSeqs: number,
    private readonly numGroups: number,
    private readonly model: Model,
    private readonly vocabSize: number,
    /** null: there are no adapters. */
    private readonly loras: Pick<LoRAManager, 'acquire' | 'release'> | null,
  ) {
    this.freeSlots = Array.from({ length: maxNumSeqs }, (_, i) => maxNumSeqs - 1 - i);
  }

  add(data: NewRequestData): RequestState {
    const slot = this.freeSlots.pop();
    if (slot === undefined) throw new Error(`no free slot for request ${data.requestId}`);
    const { samplingParams: params } = data;
    const { lora, error } = this.acquireLora(data.lora);
    const state: RequestState = {
      key: data.key,
      slot,
      numPromptTokens: data.numPromptTokens,
      numTokens: data.tokenIds.length,
      draftLength: null,
      numDraftComputed: data.numComputedTokens,
      positionOffset: this.model.positionOffset?.(data.numPromptTokens) ?? 0,
      blockTables: Array.from({ length: this.numGroups }, () => new BlockTable()),
      lora,
      error,
      sampling: prepareSampling(params, {
        eosTokenIds: data.eosTokenIds,
        seed: data.seed,
        vocabSize: this.vocabSize,
      }),
      takesDrafts: params.structuredOutputs === null && params.logitsProcessors.length === 0,
      logitsProcessors: this.logitsProcessorsOf(data),
      promptTopLogprobs: topLogprobs(params.promptLogprobs, this.vocabSize),
      promptTokenIds: params.promptLogprobs === null ? null : data.tokenIds.slice(0, data.numPromptTokens),
      pooling: data.poolingParams,
      pooledPieces: [],
    };
    this.requests.set(data.key, state);
    return state;
  }

  get(key: number): RequestState {
    const state = this.requests.get(key);
    if (state === undefined) throw new Error(`the worker does not hold request ${key}`);
    return state;
  }

  release(key: number): void {
    const state = this.requests.get(key);
    if (state === undefined) return;
    state.logitsProcessors?.remove();
    this.requests.delete(key);
    this.freeSlots.push(state.slot);
    if (state.lora !== null) this.loras?.release(state.lora.id);
  }

  releaseAll(): void {
    for (const key of [...this.requests.keys()]) this.release(key);
  }

  private acquireLora(request: LoRARequest | null): Pick<RequestState, 'lora' | 'error'> {
    if (request === null) return { lora: null, error: null };
    try {
      if (this.loras === null) throw new LoRALoadError(request.name, 'LoRA is not enabled.');
      const { slot, rank } = this.loras.acquire(request);
      return { lora: { id: request.id, slot, rank }, error: null };
    } catch (error) {
      if (error instanceof LoRALoadError) return { lora: null, error: error.message };
      throw error;
    }
  }

  private logitsProcessorsOf(data: NewRequestData): RequestLogitsProcessors | null {
    const { requestId, samplingParams: params, tokenIds, numPromptTokens } = data;
    if (params.logitsProcessors.length === 0) return null;
    return new RequestLogitsProcessors(params.logitsProcessors, {
      requestId,
      params,
      promptTokenIds: tokenIds.slice(0, numPromptTokens),
      outputTokenIds: [...tokenIds.subarray(numPromptTokens)],
      vocabSize: this.vocabSize,
    });
  }
}
