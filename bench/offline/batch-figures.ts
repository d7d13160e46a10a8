import type { Limits } from '../limit-meter.ts';
import { mean, median, percentile } from '../statistics.ts';
import type { ModelCost } from './model-cost.ts';
import { type BatchShape, type BatchTimes, batchRates } from './run-batch.ts';

const PERCENTILES = [10, 25, 50, 75, 90, 99];

/** Batches of one shape that ran one after another, between two measurements of the limits. */
export interface BatchTurn {
  times: readonly BatchTimes[];
  limits: Limits;
  /** Share of the steps' time in which the engine's loop scheduled, laid out inputs and took results, in place of computing or waiting for the device. */
  hostShare: number;
}

/** Rates beside limits, as results have them: medians over batches, and over turns. */
export interface RateFigures {
  prefill_tokens_per_s: number;
  prefill_gflops: number;
  limit_gflops: number;
  limit_bf16_dot_gflops?: number;
  decode_tokens_per_s: number;
  /** Without logits, as the prefill's. */
  decode_gflops: number;
  decode_read_gbps: number;
  limit_read_gbps: number;
  /** {@link BatchTurn.hostShare} */
  host_share: number;
}

/** What is measured of batches of one shape: vLLM's fields of `bench latency`, then rates beside the limits of the same run. */
export interface BatchFigures extends RateFigures {
  batch_size: number;
  input_len: number;
  output_len: number;
  /** Seconds. */
  avg_latency: number;
  latencies: number[];
  percentiles: Record<string, number>;
}

export function batchFigures(shape: BatchShape, turns: readonly BatchTurn[], cost: ModelCost): BatchFigures {
  const latencies = turns.flatMap(({ times }) => times.map(({ total }) => total));
  return {
    batch_size: shape.batchSize,
    input_len: shape.inputLen,
    output_len: shape.outputLen,
    avg_latency: mean(latencies),
    latencies,
    percentiles: Object.fromEntries(PERCENTILES.map((percent) => [percent, percentile(latencies, percent)])),
    ...rateFigures(shape, turns, cost),
  };
}

export function rateFigures(shape: BatchShape, turns: readonly BatchTurn[], cost: ModelCost): RateFigures {
  const rates = turns.flatMap(({ times }) => times.map((each) => batchRates(shape, each, cost)));
  const limits = turns.map((turn) => turn.limits);
  const dots = limits.map(({ bf16_dot_gflops }) => bf16_dot_gflops).filter((rate) => rate !== undefined);
  return {
    prefill_tokens_per_s: median(rates.map((rate) => rate.prefillTokensPerS)),
    prefill_gflops: median(rates.map((rate) => rate.prefillGflops)),
    limit_gflops: median(limits.map(({ gflops }) => gflops)),
    ...(dots.length > 0 && { limit_bf16_dot_gflops: median(dots) }),
    decode_tokens_per_s: median(rates.map((rate) => rate.decodeTokensPerS)),
    decode_gflops: median(rates.map((rate) => rate.decodeGflops)),
    decode_read_gbps: median(rates.map((rate) => rate.decodeReadGbps)),
    limit_read_gbps: median(limits.map(({ read_gbps }) => read_gbps)),
    host_share: median(turns.map(({ hostShare }) => hostShare)),
  };
}
