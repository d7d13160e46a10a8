import type { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import { type Random, randomTokenIds } from '../random.ts';
import type { ModelCost } from './model-cost.ts';

/** One batch: `batchSize` prompts at once, each of `inputLen` random tokens, and `outputLen` tokens from each. */
export interface BatchShape {
  batchSize: number;
  inputLen: number;
  outputLen: number;
}

/** When the phases of a batch ended, seconds from its start. */
export interface BatchTimes {
  /** Every prompt is computed: the last request has its first token. */
  prefill: number;
  total: number;
  /** Tokens that came after `prefill`. */
  decodeTokens: number;
}

/** Exactly `maxTokens` tokens, whatever they are. */
export function fixedLengthParams(maxTokens: number): SamplingParams {
  return { ...DEFAULT_SAMPLING_PARAMS, maxTokens, ignoreEos: true, detokenize: false, outputKind: 'delta' };
}

export async function runBatch(engine: OfflineEngine, shape: BatchShape, random: Random): Promise<BatchTimes> {
  const { vocabSize } = engine.config.model.hf;
  const params = fixedLengthParams(shape.outputLen);
  const requests = Array.from({ length: shape.batchSize }, () => ({
    promptTokenIds: randomTokenIds(random, shape.inputLen, vocabSize),
    params,
  }));
  const started = performance.now();
  const begun = new Set<number>();
  let prefillMs = 0;
  let decodeTokens = 0;
  await engine.generate(requests, (index, output) => {
    if (begun.size === shape.batchSize) decodeTokens += output.outputs[0]!.tokenIds.length;
    begun.add(index);
    if (begun.size === shape.batchSize && prefillMs === 0) prefillMs = performance.now() - started;
  });
  return { prefill: prefillMs / 1000, total: (performance.now() - started) / 1000, decodeTokens };
}

/** Rates of a batch. GFLOP are of the layers' matrices, without attention and logits. Decode figures are 0 where no token came after the prompts. */
export interface BatchRates {
  prefillTokensPerS: number;
  prefillGflops: number;
  decodeTokensPerS: number;
  decodeGflops: number;
  /** Weights once a step and the keys and values of every sequence, over the time of the steps, in GB/s. */
  decodeReadGbps: number;
}

export function batchRates(shape: BatchShape, times: BatchTimes, cost: ModelCost): BatchRates {
  const prefillTokensPerS = (shape.batchSize * shape.inputLen) / times.prefill;
  const seconds = times.total - times.prefill;
  const steps = times.decodeTokens / shape.batchSize;
  const averageTokens = shape.inputLen + shape.outputLen / 2;
  const bytes = steps * cost.weightBytes + times.decodeTokens * cost.kvBytes(averageTokens);
  const decodeTokensPerS = steps === 0 ? 0 : times.decodeTokens / seconds;
  return {
    prefillTokensPerS,
    prefillGflops: (prefillTokensPerS * cost.flopsPerToken) / 1e9,
    decodeTokensPerS,
    decodeGflops: (decodeTokensPerS * cost.flopsPerToken) / 1e9,
    decodeReadGbps: steps === 0 ? 0 : bytes / seconds / 1e9,
  };
}
