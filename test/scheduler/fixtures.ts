import type { KvCacheConfig, KvCacheSpec } from '../../src/kv-cache/kv-cache-spec.ts';
import type { LoRARequest } from '../../src/lora/lora-request.ts';
import {
  DEFAULT_SAMPLING_PARAMS,
  type RepetitionDetectionParams,
  type SamplingParams,
  type ThinkingBudgetParams,
} from '../../src/sampling/sampling-params.ts';
import type { FinishReason } from '../../src/scheduler/finish-reason.ts';
import { Request, type RequestInit } from '../../src/scheduler/request.ts';
import type { SchedulerOptions } from '../../src/scheduler/scheduler-options.ts';
import { emptyHistory, extendHistory, nextToken } from './fake-worker.ts';

export const DEFAULT_OPTIONS: SchedulerOptions = {
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  maxModelLen: 64,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  policy: 'fcfs',
  watermark: 0,
  enablePrefixCaching: true,
};

/** A KV cache of `numBlocks` blocks with one group a window; 0 is full attention. */
export function kvConfig(numBlocks: number, blockSize: number, windows: number[] = [0]): KvCacheConfig {
  const groups = windows.map((slidingWindow, g) => ({
    layerNames: [`layer.${g}`],
    spec: spec(blockSize, slidingWindow),
  }));
  return { numBlocks, groups, tensors: [{ bytes: numBlocks * 1024, sharedBy: groups.flatMap((g) => g.layerNames) }] };
}

export function spec(blockSize: number, slidingWindow = 0): KvCacheSpec {
  const kind = slidingWindow === 0 ? 'full' : 'sliding-window';
  return { kind, blockSize, numKvHeads: 1, headDim: 8, dtype: 'float32', slidingWindow, pageBytes: 64 * blockSize };
}

let nextKey = 1;

export function makeRequest(
  prompt: ArrayLike<number>,
  params: Partial<SamplingParams> = {},
  init: Partial<RequestInit> = {},
): Request {
  const key = nextKey++;
  return new Request({
    key,
    clientIndex: 0,
    handle: key,
    requestId: `request-${key}`,
    promptTokenIds: Int32Array.from(prompt),
    samplingParams: { ...DEFAULT_SAMPLING_PARAMS, ignoreEos: true, ...params },
    eosTokenIds: [0],
    seed: 1n,
    arrivalTimeMs: key,
    priority: 0,
    cacheSalt: null,
    lora: null,
    ...init,
  });
}

/** An adapter of that id. */
export function adapter(id: number): LoRARequest {
  return { id, name: `adapter-${id}`, path: `/adapters/${id}` };
}

/** 0, 1, 2, … from `start`. */
export function range(length: number, start = 0): number[] {
  return Array.from({ length }, (_, i) => start + i);
}

/** What the fake model answers to a request that has the machine to itself. */
export function generateAlone(
  request: Request,
  maxModelLen: number,
): { output: number[]; finishReason: FinishReason; stopReason: number | null } {
  const { samplingParams: params, numPromptTokens } = request;
  let history = emptyHistory(request.lora?.id ?? null);
  for (const token of request.tokenIds.subarray(0, numPromptTokens)) history = extendHistory(history, token);
  const output: number[] = [];
  for (;;) {
    const token = forcedToken(output, params.thinkingBudget) ?? nextToken(history);
    history = extendHistory(history, token);
    output.push(token);
    if (output.length >= params.minTokens) {
      if (!params.ignoreEos && request.eosTokenIds.includes(token))
        return { output, finishReason: 'stop', stopReason: null };
      if (params.stopTokenIds.includes(token)) return { output, finishReason: 'stop', stopReason: token };
    }
    const isFull = output.length >= params.maxTokens || numPromptTokens + output.length >= maxModelLen;
    if (isFull) return { output, finishReason: 'length', stopReason: null };
    if (output.length >= params.minTokens && repeats(output, params.repetitionDetection))
      return { output, finishReason: 'repetition', stopReason: null };
  }
}

/** What must follow by the budget, whose marks are one token each. */
function forcedToken(output: number[], budget: ThinkingBudgetParams | null): number | null {
  if (budget === null) return null;
  const [start, ends] = [budget.starts[0]![0]!, budget.ends.map(([id]) => id!)];
  const skipsStart = budget.numUsed === 0 && output[0] === start;
  const from = budget.startsInside ? Number(skipsStart) : output.indexOf(start) + 1;
  const isInside = budget.startsInside || output.includes(start);
  const thoughts = output.slice(from);
  if (!isInside || thoughts.some((id) => ends.includes(id))) return null;
  return budget.numUsed + thoughts.length >= budget.maxTokens ? ends[0]! : null;
}

function repeats(output: number[], params: RepetitionDetectionParams | null): boolean {
  if (params === null) return false;
  const { minPatternSize, maxPatternSize, minCount } = params;
  return range(maxPatternSize - minPatternSize + 1, minPatternSize).some((size) => {
    const tail = output.slice(-size * minCount);
    return tail.length === size * minCount && tail.every((id, i) => id === tail[i % size]);
  });
}
