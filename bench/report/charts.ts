import type { BatchesFigures } from '../commands/batches.ts';
import type { KernelsFigures } from '../commands/kernels.ts';
import type { LatencyFigures } from '../commands/latency.ts';
import type { ServeFigures } from '../commands/serve.ts';
import type { EngineFacts } from '../engine-facts.ts';
import { isMeasured, type PeerAspect, type PeersFigures, rowTitle } from '../peers/figures.ts';
import type { Result } from '../results.ts';
import { barChart } from './bar-chart.ts';
import { lineChart, type Series } from './line-chart.ts';

/** Older files don't have these fields. */
type Older<Figures> = Omit<Figures, keyof EngineFacts | 'device' | 'decode_gflops'> & {
  model: string;
} & Partial<EngineFacts>;

export type AnyResult =
  | (Result<Older<LatencyFigures>> & { benchmark: 'latency' })
  | (Result<BatchesFigures> & { benchmark: 'batches' })
  | (Result<ServeFigures> & { benchmark: 'serve' })
  | (Result<Older<KernelsFigures>> & { benchmark: 'kernels' })
  | (Result<Omit<PeersFigures, 'complete'>> & { benchmark: 'peers' });

type ResultOf<Name extends AnyResult['benchmark']> = Extract<AnyResult, { benchmark: Name }>;

/** Fewer measure prompts: their decoding is a matter of a few steps. */
const MIN_DECODE_LEN = 16;

/** Threads that wanted to run, by those that can: a benchmark alone stays below. */
const BUSY_LOAD = 2;

/** Of the shapes, which files without the field are of. */
const DEFAULT_DTYPE = 'bfloat16';

/** File name to SVG: every chart that the results have figures for. */
export function drawCharts(results: readonly AnyResult[]): Map<string, string> {
  const of = <Name extends AnyResult['benchmark']>(name: Name) =>
    results.filter((result): result is ResultOf<Name> => result.benchmark === name);
  const charts = new Map<string, string>();
  const decodes = [...of('latency'), ...of('batches').flatMap(eachSize)].filter(
    ({ output_len }) => output_len >= MIN_DECODE_LEN,
  );
  if (decodes.length > 0) charts.set('throughput-by-batch.svg', throughputByBatch(decodes));
  const loads = of('serve').filter((result) => result.request_rate !== 'inf' && result.max_concurrency === null);
  if (loads.length > 0) charts.set('latency-by-load.svg', latencyByLoad(loads));
  const kernels = of('kernels').filter((result) => quantizationOf(result) === 'none');
  if (kernels.length > 0) charts.set('kernels-roofline.svg', roofline(widest(kernels)));
  for (const [peers, own] of groupBy(of('peers'), othersOf)) {
    for (const [model, same] of groupBy(own, modelFileName)) {
      for (const aspects of [['prefill', 'decode'], ['streams']] as const) {
        const measured = same.filter(({ rows }) => rows.some((row) => isMeasured(row) && isOneOf(aspects, row.aspect)));
        if (measured.length > 0)
          charts.set(`${model}-${aspects.at(-1)}-beside-${peers}.svg`, peersBars(measured, aspects));
      }
    }
  }
  return charts;
}

/** As runs of their own. */
function eachSize({ batches, ...run }: ResultOf<'batches'>): ResultOf<'latency'>[] {
  return batches.map((size) => ({ ...run, ...size, benchmark: 'latency' }));
}

/** A line for each model and quantization, on the machine that was measured last, for the lengths of most results. */
function throughputByBatch(results: readonly ResultOf<'latency'>[]): string {
  const sameLengths = largest(
    groupBy(onLatestMachine(results), ({ input_len, output_len }) => `${input_len} tokens in, ${output_len} out`),
  );
  const [lengths, shown] = sameLengths;
  const lines = groupBy(shown, engineName).map(([name, own]) => ({
    name,
    points: groupBy(own, ({ batch_size }) => batch_size)
      .map(([size, same]) => ({ x: size, result: latest(same)! }))
      .sort((a, b) => a.x - b.x),
  }));
  const measured = lines.map(
    ({ name, points }): Series => ({
      name,
      kind: 'line',
      points: points.map(({ x, result }) => ({ x, y: result.decode_tokens_per_s })),
    }),
  );
  const limits = lines.flatMap(({ name, points }, index): Series[] => {
    if (points.some(({ result }) => quantizationOf(result) !== 'none')) return [];
    const limit = points.map(({ x, result }) => ({ x, y: decodeLimit(result) }));
    return [{ name: `limit of ${name}`, kind: 'limit', points: limit, colorOf: index }];
  });
  const sizes = new Set(shown.map(({ batch_size }) => batch_size));
  return lineChart({
    title: 'Decode throughput against batch size',
    subtitle: `${lengths}; ${where(latest(shown)!)}`,
    x: { label: 'sequences at once', log: true, ticks: [...sizes].sort((a, b) => a - b) },
    y: { label: 'tokens/s', log: true },
    series: [...measured, ...limits],
  });
}

/** Tokens a second that reading allows, or multiplying where that is less; products of quantized weights have another peak. */
function decodeLimit(result: ResultOf<'latency'>): number {
  const reading = (result.decode_tokens_per_s * result.limit_read_gbps) / result.decode_read_gbps;
  const multiplying = (result.prefill_tokens_per_s * result.limit_gflops) / result.prefill_gflops;
  return Math.min(reading, multiplying);
}

/** The rates of the load that was measured last: same model, same lengths. */
function latencyByLoad(results: readonly ResultOf<'serve'>[]): string {
  const last = latest(results)!;
  const load = (result: ResultOf<'serve'>) => `${result.model_id}, ${loadLengths(result)}`;
  const own = onLatestMachine(results).filter((result) => load(result) === load(last));
  const byRate = groupBy(own, ({ request_rate }) => Number(request_rate))
    .map(([rate, same]) => ({ rate, result: latest(same)! }))
    .sort((a, b) => a.rate - b.rate);
  const series = (['ttft', 'tpot'] as const).flatMap((metric) =>
    (['median', 'p99'] as const).map(
      (figure): Series => ({
        name: `${figure} ${metric.toUpperCase()}`,
        kind: 'line',
        points: byRate
          .map(({ rate, result }) => ({ x: rate, y: result[`${figure}_${metric}_ms`] ?? 0 }))
          .filter(({ y }) => y > 0),
      }),
    ),
  );
  return lineChart({
    title: 'Latency against load',
    subtitle: `${load(last)}; ${where(last)}`,
    x: { label: 'requests/s', log: true, ticks: byRate.map(({ rate }) => rate) },
    y: { label: 'ms', log: true },
    series,
  });
}

function loadLengths({ total_input_tokens, total_output_tokens, completed }: ResultOf<'serve'>): string {
  return `${Math.round(total_input_tokens / completed)} tokens in, ${Math.round(total_output_tokens / completed)} out`;
}

function roofline(result: ResultOf<'kernels'>): string {
  const { limit_read_gbps: gbps, limit_gflops: gflops } = result;
  const computing = result.kernels.filter((kernel) => kernel.gflops > 0);
  const intensities = [...computing.map(({ intensity }) => intensity), gflops / gbps];
  const [low, high] = [Math.min(...intensities) / 1.5, Math.max(...intensities) * 1.5];
  const limit: Series = {
    name: 'limit',
    kind: 'limit',
    points: [low, gflops / gbps, high].map((x) => ({ x, y: Math.min(gflops, x * gbps) })),
  };
  const marks = groupBy(computing, ({ op }) => op).map(
    ([op, kernels]): Series => ({
      name: op,
      kind: 'marks',
      points: kernels.map((kernel) => ({
        x: kernel.intensity,
        y: kernel.gflops,
        label: `${op} ${kernel.shape}: ${kernel.gflops.toFixed(1)} GFLOP/s, ${kernel.gbps.toFixed(1)} GB/s`,
      })),
    }),
  );
  return lineChart({
    title: 'Kernels against the roofline',
    subtitle: `shapes of ${modelName(result)}; small ones come from a cache; ${where(result)}`,
    x: { label: 'operations a byte', log: true },
    y: { label: 'GFLOP/s', log: true },
    series: [...marks, limit],
  });
}

/** Each load as it was measured last, on the machine of the latest result; runs that were cut off count with the loads that they have. */
function peersBars(results: readonly ResultOf<'peers'>[], aspects: readonly PeerAspect[]): string {
  const result = latest(results)!;
  const all = onLatestMachine(results)
    .toSorted(byDate)
    .flatMap((each) => each.rows)
    .filter(isMeasured);
  const rows = aspects.flatMap((aspect) =>
    groupBy(
      all.filter((row) => row.aspect === aspect),
      (row) => `${row.peer} ${rowTitle(row)}`,
    ).map(([, measured]) => measured.at(-1)!),
  );
  const byTitle = groupBy(rows, rowTitle);
  const series = groupBy(rows, ({ peer }) => peer).map(([peer, own]) => ({
    // What a version says of its build is for the file.
    name: `${peer} ${result.versions[peer]?.split(' ')[0] ?? ''}`.trim(),
    values: byTitle.map(([title]) => own.find((row) => rowTitle(row) === title)?.tokens_per_s ?? null),
  }));
  return barChart({
    title: `${modelName(result)} through each engine`,
    subtitle: `${result.quantization === 'none' ? '' : `${result.quantization}; `}${where(result)}`,
    yLabel: 'tokens/s',
    categories: byTitle.map(([title]) => title),
    series,
    limits: byTitle.map(([, [row]]) => row!.limit_tokens_per_s),
  });
}

/** The engines beside the first one that have figures, in one word. */
function othersOf({ versions, rows }: ResultOf<'peers'>): string {
  const measured = new Set(rows.filter(isMeasured).map(({ peer }) => peer));
  const others = Object.keys(versions).slice(1);
  return others.filter((name) => measured.has(name)).join('-') || 'nothing';
}

/** "0.5b bfloat16", "0.5b int8", "0.5b int8, KV fp8_e4m3" */
function engineName(result: ResultOf<'latency'>): string {
  const quantization = quantizationOf(result);
  const { dtype = DEFAULT_DTYPE, kv_cache_dtype: kvDtype = dtype } = result;
  const weights = quantization === 'none' ? dtype : quantization;
  return `${modelName(result)} ${weights}${kvDtype === dtype ? '' : `, KV ${kvDtype}`}`;
}

/** Where a file has no such field, its command says it. */
function quantizationOf({ quantization, command }: { quantization?: string; command: string }): string {
  return quantization ?? /--quantization[ =](\S+)/.exec(command)?.[1] ?? 'none';
}

/** "0.5b", "0.5b-int8" */
function modelFileName(result: ResultOf<'peers'>): string {
  return result.quantization === 'none' ? modelName(result) : `${modelName(result)}-${result.quantization}`;
}

function modelName({ model }: { model: string }): string {
  return model.split('/').at(-1)!;
}

function where({ machine, date }: AnyResult): string {
  const { cpu, threads, load_average: load } = machine;
  const isBusy = load > BUSY_LOAD * threads;
  return `${cpu}, ${threads} threads, ${date.slice(0, 10)}${isBusy ? ', with other work on the machine' : ''}`;
}

function latest<Each extends { date: string }>(results: readonly Each[]): Each | undefined {
  return results.toSorted(byDate).at(-1);
}

function byDate(a: { date: string }, b: { date: string }): number {
  return a.date.localeCompare(b.date);
}

/** Those of the machine that the latest one is of: figures of several in one chart would be compared. */
function onLatestMachine<Each extends AnyResult>(results: readonly Each[]): Each[] {
  const { machine } = latest(results)!;
  return results.filter((result) => result.machine.cpu === machine.cpu && result.machine.threads === machine.threads);
}

/** The latest result of those that have most ops. */
function widest(results: readonly ResultOf<'kernels'>[]): ResultOf<'kernels'> {
  const numOps = ({ kernels }: ResultOf<'kernels'>) => new Set(kernels.map(({ op }) => op)).size;
  const most = Math.max(...results.map(numOps));
  return latest(results.filter((result) => numOps(result) === most))!;
}

function largest<Key, Each>(groups: readonly [Key, Each[]][]): [Key, Each[]] {
  return groups.reduce((best, group) => (group[1].length > best[1].length ? group : best));
}

function groupBy<Each, Key>(items: readonly Each[], key: (item: Each) => Key): [Key, Each[]][] {
  return [...Map.groupBy(items, key)];
}

function isOneOf<Value>(values: readonly Value[], value: Value): boolean {
  return values.includes(value);
}
