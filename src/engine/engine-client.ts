import type { BaoConfig } from '../config/bao-config.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import type { FinishReason, RequestFailure } from '../scheduler/finish-reason.ts';
import type { ChatTemplateInput, Tokenizer } from '../tokenizer/tokenizer.ts';
import type { SchedulerStats, SleepLevel, SleepMode, WakeTag } from './messages.ts';

/** What the server needs of an engine; AsyncLLM is the implementation, tests may use their own. */
export interface EngineClient {
  readonly config: BaoConfig;
  /** null with `--skip-tokenizer-init`. */
  readonly tokenizer: Tokenizer | null;

  /** Text to ids, off the main thread when long. Throws ValidationError when there is no tokenizer. */
  encode(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array>;
  /** Whether conversations can be rendered without a template of their own. */
  readonly hasChatTemplate: boolean;
  /** Conversation to prompt text by the model's chat template. Throws ValidationError for what the template refuses. */
  renderChat(input: ChatTemplateInput): string;

  /**
   * Checks the request against the model's limits and queues it; outputs then arrive through `sink` until one with `finished`.
   * Throws ValidationError (the client's mistake), QueueFullError, EngineDeadError.
   */
  addRequest(request: GenerateRequest, sink: OutputSink): void;
  /** The same for a request that is pooled; its one output arrives through `sink`. */
  addPoolingRequest(request: PoolingRequest, sink: PoolingSink): void;
  /** `addRequest` as an async iterator; leaving the loop aborts the request. */
  generate(request: GenerateRequest): AsyncGenerator<RequestOutput, void, void>;
  /** Frees the request's resources within a step; its sink gets no more calls. Unknown ids are ignored. */
  abort(requestId: string): void;

  health(): HealthStatus;
  /**
   * Forgets all cached prefixes on every core; false where blocks are in use.
   *
   * @param resetRunningRequests running requests are preempted and computed anew, so that no block is in use
   */
  resetPrefixCache(resetRunningRequests?: boolean): Promise<boolean>;
  /** Puts every core to sleep; requests that come wait until they wake. Settles when what the level frees is free. Throws Error. */
  sleep(level: SleepLevel, mode: SleepMode): Promise<void>;
  /** Wakes every core, or what the tags name of it. Throws Error where that can't be done; the cores sleep on then. */
  wakeUp(tags?: readonly WakeTag[]): Promise<void>;
  /** Whether any core sleeps. */
  isSleeping(): Promise<boolean>;
  /** Settles when every core has read the adapter. Rejects with ValidationError for one that can't be loaded; no core keeps it then. */
  addLora(request: LoRARequest): Promise<void>;
  /** Settles when no core gives the adapter to new requests; those that have it keep it. */
  removeLora(id: number): Promise<void>;
  /** Latest counters, one entry a core. */
  stats(): SchedulerStats[];
  /** Requests that are queued or running, as this client knows them. */
  readonly numUnfinishedRequests: number;
}

/** What requests to generate and to pool have in common. */
export interface EngineRequest {
  requestId: string;
  promptTokenIds: Int32Array;
  /** Lower is sooner. Default 0. */
  priority?: number;
  cacheSalt?: string | null;
  /** Absent or null: the base model. */
  lora?: LoRARequest | null;
  /** Core chosen by the client of the API (`X-data-parallel-rank`). */
  dataParallelRank?: number | null;
  /** Milliseconds since the epoch; default now. */
  arrivalTimeMs?: number;
  /** W3C trace context of the client's span. */
  traceHeaders?: TraceHeaders | null;
}

export interface GenerateRequest extends EngineRequest {
  params: SamplingParams;
}

export interface PoolingRequest extends EngineRequest {
  pooling: PoolingParams;
}

export interface TraceHeaders {
  traceparent: string;
  tracestate: string | null;
}

export interface OutputSink {
  onOutput(output: RequestOutput): void;
  /** The request can't be finished (engine died, …). No output follows. */
  onError(error: Error): void;
}

/** Gets one call, of either method. */
export interface PoolingSink {
  onOutput(output: PoolingRequestOutput): void;
  onError(error: Error): void;
}

export interface PoolingRequestOutput {
  requestId: string;
  promptTokenIds: Int32Array;
  output: PoolerOutput;
  numCachedTokens: number;
}

export interface TokenLogprob {
  tokenId: number;
  logprob: number;
  /** 1-based. */
  rank: number;
  /** The token's text as it appears in the output; '' without a tokenizer. */
  decodedToken: string;
}

/** Log probabilities at one position: the chosen token first, then the best ones (which may repeat it). null for a prompt's first token. */
export type PositionLogprobs = TokenLogprob[] | null;

export interface CompletionOutput {
  /** 0..n-1 */
  index: number;
  /** All text so far, or only the new text with outputKind 'delta'. */
  text: string;
  tokenIds: number[];
  logprobs: PositionLogprobs[] | null;
  finishReason: FinishReason | null;
  /** The stop string or stop token id that ended it. */
  stopReason: string | number | null;
  /** With the finish reason `error`. */
  failure?: RequestFailure | null;
}

export interface RequestOutput {
  requestId: string;
  promptTokenIds: Int32Array;
  /** One entry a prompt token, the first null; with the first output that has it all, if asked for. */
  promptLogprobs: PositionLogprobs[] | null;
  /** With 'delta' and 'cumulative' those that changed, with 'final-only' all n. */
  outputs: CompletionOutput[];
  finished: boolean;
  numCachedTokens: number;
}

export type HealthStatus = { healthy: true } | { healthy: false; reason: string };

/** A request that is pooled has ended without an output. */
export class RequestEndedError extends Error {
  constructor(
    requestId: string,
    readonly finishReason: FinishReason,
    /** With the finish reason `error`. */
    readonly failure: RequestFailure | null,
  ) {
    super(failure?.message ?? `Request ${requestId} has ended without an output (${finishReason}).`);
    this.name = 'RequestEndedError';
  }
}

/** An engine core is gone or stuck: HTTP 500 for what was running, 503 for what comes. */
export class EngineDeadError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'EngineDeadError';
  }
}
