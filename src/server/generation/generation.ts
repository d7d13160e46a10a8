import {
  type CompletionOutput,
  EngineDeadError,
  type EngineRequest,
  type GenerateRequest,
  type PoolingRequest,
  type RequestOutput,
  type TraceHeaders,
} from '../../engine/engine-client.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import { logger } from '../../logging/logger.ts';
import type { LoRARequest } from '../../lora/lora-request.ts';
import { MAX_SEQUENCES, resolveSamplingParams, type SamplingFields } from '../../sampling/resolve-sampling-params.ts';
import type { RequestOutputKind, SamplingParams, ThinkingBudgetParams } from '../../sampling/sampling-params.ts';
import type { StructuredOutputsParams } from '../../sampling/structured-outputs-params.ts';
import { ApiError, ClientDisconnectedError, toApiError } from '../errors.ts';
import type { GenerationFields } from '../protocol/generation-fields.ts';
import { randomId } from '../request-id.ts';
import type { ServerContext } from '../server-context.ts';
import { startDeadline } from './deadline.ts';

const log = logger('server');

/** What a route adds to the fields that all have. */
export interface GenerationPlan {
  maxTokens: number;
  logprobs: number | null;
  promptLogprobs: number | null;
  outputKind: RequestOutputKind;
  structuredOutputs: StructuredOutputsParams | null;
  thinkingBudget: ThinkingBudgetParams | null;
}

/** Tokens that may follow a prompt: what the request, else the model's generation config, asks for, within the operator's limit and what fits. */
export function resolveMaxTokens(context: ServerContext, requested: number | null, promptLength: number): number {
  const { maxModelLen, defaultSamplingParams, maxTokensLimit } = context.config.model;
  const wanted = requested ?? defaultSamplingParams.max_tokens ?? Number.POSITIVE_INFINITY;
  return Math.min(wanted, maxTokensLimit ?? Number.POSITIVE_INFINITY, maxModelLen - promptLength);
}

/** @throws ValidationError that names the field at fault */
export function samplingParams(
  context: ServerContext,
  fields: GenerationFields & Pick<SamplingFields, 'n'>,
  plan: GenerationPlan,
): SamplingParams {
  const { model } = context.config;
  return resolveSamplingParams(
    // A search has several answers at any temperature.
    fields.use_beam_search ? { ...fields, temperature: 1 } : fields,
    {
      defaults: model.defaultSamplingParams,
      maxTokens: plan.maxTokens,
      logprobs: plan.logprobs,
      promptLogprobs: plan.promptLogprobs,
      outputKind: plan.outputKind,
      structuredOutputs: plan.structuredOutputs,
      thinkingBudget: plan.thinkingBudget,
      vocabSize: model.hf.vocabSize,
      maxLogprobs: model.maxLogprobs,
      tokenizer: context.engine.tokenizer,
    },
  );
}

/** Where in the queue, and on which core, a request runs. */
export interface Placement {
  priority: number;
  cacheSalt: string | null;
  lora: LoRARequest | null;
  dataParallelRank: number | null;
  traceHeaders: TraceHeaders | null;
}

/** @throws ValidationError for a priority or a rank that this server does not have */
export function placement(
  context: ServerContext,
  fields: Pick<GenerationFields, 'priority' | 'cache_salt'>,
  headers: Headers,
  lora: LoRARequest | null,
): Placement {
  const { scheduler, parallel } = context.config;
  const priority = integerHeader(headers, 'X-Vllm-Priority') ?? fields.priority ?? 0;
  if (priority !== 0 && scheduler.schedulingPolicy !== 'priority') {
    throw new ValidationError(`Got priority ${priority} but priority scheduling is not enabled.`, 'priority');
  }
  const rank = integerHeader(headers, 'X-data-parallel-rank');
  if (rank !== null && (rank < 0 || rank >= parallel.dataParallelSize)) {
    throw new ValidationError(`data_parallel_rank ${rank} is out of range [0, ${parallel.dataParallelSize}).`);
  }
  const cacheSalt = typeof fields.cache_salt === 'string' ? fields.cache_salt : null;
  return { priority, cacheSalt, lora, dataParallelRank: rank, traceHeaders: traceHeaders(headers) };
}

function traceHeaders(headers: Headers): TraceHeaders | null {
  const traceparent = headers.get('traceparent');
  return traceparent === null ? null : { traceparent, tracestate: headers.get('tracestate') };
}

/** A header that isn't an integer counts as absent, as in vLLM: proxies add what they like. */
function integerHeader(headers: Headers, name: string): number | null {
  const text = headers.get(name);
  return text !== null && /^\s*[+-]?\d{1,15}\s*$/.test(text) ? Number(text) : null;
}

/** An id for the engine: a client's own id may be in use twice, and abort must hit one request only. */
export function engineRequestId(responseId: string): string {
  return `${responseId}-${randomId()}`;
}

/** What becomes of requests that run together as one answer. */
export interface GenerationHandler {
  onOutput(requestIndex: number, output: RequestOutput): void;
  /** All have finished. Nothing follows. */
  onEnd(): void;
  /** One has failed, and the others have been aborted. Nothing follows. */
  onError(error: unknown): void;
}

/**
 * Hands the requests to the engine; outputs go to `handler` as they come, until all have finished or the returned function is called, which frees
 * what the requests hold.
 *
 * @throws what `EngineClient.addRequest` throws; no request is left behind then
 */
export function startGeneration(
  context: ServerContext,
  requests: readonly GenerateRequest[],
  handler: GenerationHandler,
): () => void {
  checkNumSequences(requests);
  const { engine, load } = context;
  const tracks = context.config.frontend.enableServerLoadTracking;
  const running = new Set<string>();
  let isOver = false;
  const finish = () => {
    isOver = true;
    callOff();
    if (tracks) load.add(-1);
    for (const id of running) engine.abort(id);
    running.clear();
  };
  const cancel = () => {
    if (!isOver) finish();
  };
  const fail = (error: unknown) => {
    if (isOver) return;
    finish();
    handler.onError(error);
  };
  const receive = (index: number, output: RequestOutput) => {
    if (isOver) return;
    if (output.finished) running.delete(output.requestId);
    for (const choice of output.outputs) {
      const failure = failureOf(choice);
      if (failure !== null) return fail(failure);
    }
    handler.onOutput(index, output);
    if (!output.finished || running.size > 0) return;
    finish();
    handler.onEnd();
  };

  const callOff = startDeadline(context, fail);
  if (tracks) load.add(1);
  for (const request of requests) running.add(request.requestId);
  try {
    requests.forEach((request, index) => {
      engine.addRequest(request, { onOutput: (output) => receive(index, output), onError: fail });
    });
  } catch (error) {
    finish();
    throw error;
  }
  return cancel;
}

/** Prompts and n are bounded by themselves; it is their product that would keep the server from everybody else. */
function checkNumSequences(requests: readonly GenerateRequest[]): void {
  const numSequences = requests.reduce((sum, { params }) => sum + params.n, 0);
  if (numSequences <= MAX_SEQUENCES) return;
  throw new ValidationError(
    `${requests.length} prompts with n=${requests[0]!.params.n} are ${numSequences} sequences; a request may have at most ${MAX_SEQUENCES}.`,
    'n',
  );
}

/** What to answer about a choice, or a request that is pooled, which did not come to an end of its own; null for one that did or goes on. */
export function failureOf({
  finishReason,
  failure,
}: Pick<CompletionOutput, 'finishReason' | 'failure'>): ApiError | null {
  if (failure?.fault === 'client') return new ApiError(400, 'BadRequestError', failure.message);
  if (finishReason === 'error') {
    return new ApiError(500, 'InternalServerError', failure?.message ?? 'Internal server error');
  }
  if (finishReason !== 'abort') return null;
  return new ApiError(
    503,
    'ServiceUnavailableError',
    'The server has aborted this request: it is shutting down, or its engine was put to sleep.',
  );
}

/**
 * The last output of each request, in their order.
 *
 * @throws ClientDisconnectedError when `signal` aborts, and what the engine reports
 */
export function collectOutputs(
  context: ServerContext,
  requests: readonly GenerateRequest[],
  signal: AbortSignal,
): Promise<RequestOutput[]> {
  const { promise, resolve, reject } = Promise.withResolvers<RequestOutput[]>();
  const last: RequestOutput[] = [];
  if (signal.aborted) throw new ClientDisconnectedError();
  const cancel = startGeneration(context, requests, {
    onOutput: (index, output) => {
      last[index] = output;
    },
    onEnd: () => resolve(last),
    // The request had been accepted: a dead engine is a failure now, not a refusal.
    onError: (error) => reject(error instanceof EngineDeadError ? toApiError(error, '', true) : error),
  });
  const onAbort = () => {
    cancel();
    reject(new ClientDisconnectedError());
  };
  signal.addEventListener('abort', onAbort, { once: true });
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}

/** With `--enable-log-requests`: parameters at info, prompts at debug, cut to `--max-log-len`. */
export function logRequest(context: ServerContext, request: GenerateRequest, promptText: string | null): void {
  logAccepted(context, request, request.params, promptText);
}

/** The same for a request that is pooled. */
export function logPooling(context: ServerContext, request: PoolingRequest, promptText: string | null): void {
  logAccepted(context, request, request.pooling, promptText);
}

function logAccepted(context: ServerContext, request: EngineRequest, params: object, promptText: string | null): void {
  const { enableLogRequests, maxLogLen } = context.config.frontend;
  if (!enableLogRequests) return;
  const { requestId, promptTokenIds } = request;
  log.info(`received request ${requestId}`, { params: JSON.stringify(params), promptTokens: promptTokenIds.length });
  const cut = maxLogLen ?? Number.POSITIVE_INFINITY;
  log.debug(`prompt of request ${requestId}`, {
    prompt: promptText === null ? null : promptText.slice(0, cut),
    promptTokenIds: [...promptTokenIds.subarray(0, cut)],
  });
}
