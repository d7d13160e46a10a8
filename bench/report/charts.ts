import type { KernelsFigures } from '../commands/kernels.ts';
import type { LatencyFigures } from '../commands/latency.ts';
import type { ServeFigures } from '../commands/serve.ts';
import { type PeerAspect, type PeersFigures, rowTitle } from '../peers/measure.ts';
import type { Result } from '../results.ts';
import { barChart, lineChart, type Series } from './svg.ts';

export type AnyResult =
  | (Result<LatencyFigures> & { benchmark: 'latency' })
  | (Result<ServeFigures> & { benchmark: 'serve' })
  | (Result<KernelsFigures> & { benchmark: 'kernels' })
  | (Result<PeersFigures> & { benchmark: 'peers' });

type ResultOf<Name extends AnyResult['benchmark']> = Extract<AnyResult, { benchmark: Name }>;

/** File name to SVG: every chart that the results have figures for. */
export function drawCharts(results: readonly AnyResult[]): Map<string, string> {
  const of = <Name extends AnyResult['benchmark']>(name: Name) =>
    results.filter((result): result is ResultOf<Name> => result.benchmark === name);
  const charts = new Map<string, string>();
  if (of('latency').length > 0) charts.set('throughput-by-batch.svg', throughputByBatch(of('latency')));
  if (of('serve').length > 0) charts.set('latency-by-load.svg', latencyByLoad(of('serve')));
  const latestKernels = latest(of('kernels'));
  if (latestKernels !== undefined) charts.set('kernels-roofline.svg', roofline(latestKernels));
  for (const aspect of ['prefill', 'decode', 'streams'] as const) {
    const result = latest(of('peers').filter(({ rows }) => rows.some((row) => row.aspect === aspect)));
    if (result !== undefined) charts.set(`peers-${aspect}.svg`, peersBars(result, aspect));
  }
  return charts;
}

function latest<Each extends { date: string }>(results: readonly Each[]): Each | undefined {
  return [...results].sort((a, b) => a.date.localeCompare(b.date)).at(-1);
}

/** One line a model; of several results for one batch size the latest. */
function throughputByBatch(results: readonly ResultOf<'latency'>[]): string {
  const series = groupBy(results, ({ model }) => model).map(([model, own]): Series => {
    const bySize = groupBy(own, ({ batch_size }) => batch_size).map(([size, same]) => ({
      size,
      result: latest(same)!,
    }));
    return {
      name: shortName(model),
      points: bySize
        .filter(({ result }) => result.decode_tokens_per_s > 0)
        .sort((a, b) => a.size - b.size)
        .map(({ size, result }) => ({ x: size, y: result.decode_tokens_per_s })),
    };
  });
  return lineChart({ title: 'Decode throughput', xLabel: 'batch size', yLabel: 'tokens/s', series });
}

function latencyByLoad(results: readonly ResultOf<'serve'>[]): string {
  const metrics = { TTFT: 'median_ttft_ms', TPOT: 'median_tpot_ms' } as const;
  const series = Object.entries(metrics).map(([name, field]) => ({
    name: `median ${name}`,
    points: results
      .map((result) => ({ x: result.request_throughput, y: result[field] ?? 0 }))
      .sort((a, b) => a.x - b.x),
  }));
  return lineChart({ title: 'Latency under load', xLabel: 'requests/s', yLabel: 'ms', yLog: true, series });
}

function roofline(result: ResultOf<'kernels'>): string {
  const { limit_read_gbps: gbps, limit_gflops: gflops } = result;
  const computing = result.kernels.filter((kernel) => kernel.gflops > 0);
  const intensities = [...computing.map(({ intensity }) => intensity), gflops / gbps];
  const [low, high] = [Math.min(...intensities) / 2, Math.max(...intensities) * 2];
  const limit: Series = {
    name: 'limit',
    isLimit: true,
    points: [low, gflops / gbps, high].map((x) => ({ x, y: Math.min(gflops, x * gbps) })),
  };
  const marks = groupBy(computing, ({ op }) => op).map(([op, kernels]) => ({
    name: op,
    isScatter: true,
    points: kernels.map((kernel) => ({
      x: kernel.intensity,
      y: kernel.gflops,
      label: `${op} ${kernel.shape}: ${kernel.gflops.toFixed(1)} GFLOP/s, ${kernel.gbps.toFixed(1)} GB/s`,
    })),
  }));
  return lineChart({
    title: 'Kernels against the roofline',
    xLabel: 'operations a byte',
    yLabel: 'GFLOP/s',
    xLog: true,
    yLog: true,
    series: [limit, ...marks],
  });
}

function peersBars(result: ResultOf<'peers'>, aspect: PeerAspect): string {
  const rows = result.rows.filter((row) => row.aspect === aspect);
  const byTitle = groupBy(rows, rowTitle);
  const peers = groupBy(rows, ({ peer }) => peer).map(([name, own]) => ({
    name,
    values: own.map(({ tokens_per_s }) => tokens_per_s),
  }));
  const limits = byTitle.map(([, [row]]) => row!.limit_tokens_per_s);
  return barChart({
    title: `${shortName(result.model)} through each engine`,
    yLabel: 'tokens/s',
    categories: byTitle.map(([title]) => title),
    series: limits.every((limit) => limit === null) ? peers : [...peers, { name: 'limit', values: limits }],
  });
}

function groupBy<Each, Key>(items: readonly Each[], key: (item: Each) => Key): [Key, Each[]][] {
  return [...Map.groupBy(items, key)];
}

function shortName(model: string): string {
  return model.split('/').at(-1) ?? model;
}
