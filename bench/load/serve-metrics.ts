import { mean, median, percentile, standardDeviation } from '../statistics.ts';
import type { RequestResult } from './target.ts';

/** Time to first token, time per output token after it, gaps between chunks, and the whole request: milliseconds. */
export const LATENCY_METRICS = ['ttft', 'tpot', 'itl', 'e2el'] as const;
export type LatencyMetric = (typeof LATENCY_METRICS)[number];

/** Figures of a load run in vLLM's names. */
export interface ServeMetrics {
  completed: number;
  failed: number;
  total_input_tokens: number;
  total_output_tokens: number;
  request_throughput: number;
  /** Requests a second that kept all limits; null when there are none. */
  request_goodput: number | null;
  output_throughput: number;
  total_token_throughput: number;
  /** mean_, median_, std_ and p99_ (or other percentiles) of ttft_ms, tpot_ms, itl_ms, e2el_ms. */
  [figure: `${string}_ms`]: number;
}

export interface MetricSelection {
  metrics: readonly LatencyMetric[];
  percentiles: readonly number[];
  /** Limits in milliseconds. */
  goodput: Readonly<Partial<Record<LatencyMetric, number>>>;
}

export function serveMetrics(
  results: readonly RequestResult[],
  durationS: number,
  selection: MetricSelection,
): ServeMetrics {
  const completed = results.filter((result) => result.success);
  const total = (count: (result: RequestResult) => number) => completed.reduce((sum, each) => sum + count(each), 0);
  const inputTokens = total((result) => result.promptLen);
  const outputTokens = total((result) => result.outputTokens);
  const limits = Object.entries(selection.goodput) as [LatencyMetric, number][];
  const good = completed.filter((result) =>
    limits.every(([metric, limitMs]) => metricOf(metric, result).every((ms) => ms <= limitMs)),
  );
  const metrics: ServeMetrics = {
    completed: completed.length,
    failed: results.length - completed.length,
    total_input_tokens: inputTokens,
    total_output_tokens: outputTokens,
    request_throughput: completed.length / durationS,
    request_goodput: limits.length === 0 ? null : good.length / durationS,
    output_throughput: outputTokens / durationS,
    total_token_throughput: (inputTokens + outputTokens) / durationS,
  };
  for (const metric of selection.metrics) {
    const values = completed.flatMap((result) => metricOf(metric, result));
    metrics[`mean_${metric}_ms`] = mean(values);
    metrics[`median_${metric}_ms`] = median(values);
    metrics[`std_${metric}_ms`] = standardDeviation(values);
    for (const percent of selection.percentiles) metrics[`p${percent}_${metric}_ms`] = percentile(values, percent);
  }
  return metrics;
}

/** A request's values in milliseconds: one, or for itl one a gap; no tpot for a single token. */
function metricOf(metric: LatencyMetric, result: RequestResult): number[] {
  switch (metric) {
    case 'ttft':
      return [result.ttft * 1000];
    case 'tpot':
      return result.outputTokens > 1 ? [((result.latency - result.ttft) * 1000) / (result.outputTokens - 1)] : [];
    case 'itl':
      return result.itl.map((seconds) => seconds * 1000);
    case 'e2el':
      return [result.latency * 1000];
  }
}
