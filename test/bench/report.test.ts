import { expect, test } from 'bun:test';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeReport } from '../../bench/commands/report.ts';
import { batchFigures } from '../../bench/offline/batch-figures.ts';
import type { PeersFigures } from '../../bench/peers/figures.ts';
import { barChart } from '../../bench/report/bar-chart.ts';
import { type AnyResult, drawCharts } from '../../bench/report/charts.ts';
import { lineChart } from '../../bench/report/line-chart.ts';
import { asResult, writeResult } from '../../bench/results.ts';
import { ConfigError } from '../../src/config/config-error.ts';

const COST = { weightBytes: 1e9, flopsPerToken: 1e9, kvBytes: () => 0 };

const ENGINE = { model: 'shapes/x', dtype: 'bfloat16', kv_cache_dtype: 'bfloat16' };

/** A batch of which every step took 0.1 s after a prefill of 1 s. */
function figuresOf(batchSize: number, quantization = 'none') {
  const times = { prefill: 1, total: 2, decodeTokens: 10 * batchSize };
  const shape = { batchSize, inputLen: 100, outputLen: 20 };
  const turn = { times: [times, times], limits: { read_gbps: 20, gflops: 400 }, hostShare: 0.01 };
  return { ...ENGINE, quantization, device: 'CPU, 2 threads, AVX2', ...batchFigures(shape, [turn], COST) };
}

test('latency figures are rates beside limits, in the field names of vLLM', () => {
  const figures = figuresOf(4);
  expect(figures).toMatchObject({ avg_latency: 2, latencies: [2, 2], prefill_tokens_per_s: 400, prefill_gflops: 400 });
  expect(Object.keys(figures.percentiles)).toEqual(['10', '25', '50', '75', '90', '99']);
  expect(figures.decode_tokens_per_s).toBe(40);
  expect(figures.decode_gflops).toBe(40);
  expect(figures.decode_read_gbps).toBe(10);
  expect(figures.limit_read_gbps).toBe(20);
  expect(figures.host_share).toBe(0.01);
});

const ROW = { peer: 'a', batch_size: 1, input_len: 4, output_len: 4, tokens_per_s: 10, tokens_per_s_rounds: [10] };

const PEERS: PeersFigures = {
  model: 'shapes/x',
  quantization: 'none',
  threads: 1,
  complete: true,
  versions: { a: '1.0', b: '2.0' },
  ready_s: { a: 1, b: 2 },
  rows: [
    { ...ROW, aspect: 'decode', limit_tokens_per_s: 40 },
    { ...ROW, aspect: 'decode', limit_tokens_per_s: 40, peer: 'b' },
    { ...ROW, aspect: 'decode', limit_tokens_per_s: 80, batch_size: 2 },
    { ...ROW, aspect: 'decode', limit_tokens_per_s: 80, batch_size: 2, peer: 'b' },
    { ...ROW, aspect: 'streams', limit_tokens_per_s: null },
    { ...ROW, aspect: 'streams', limit_tokens_per_s: null, peer: 'b' },
  ],
  limit_read_gbps: 20,
  limit_gflops: 400,
};

test('results become charts', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-report-'));
  try {
    const results = join(folder, 'results');
    for (const size of [1, 8, 16]) await writeResult(join(results, `latency-${size}.json`), 'latency', figuresOf(size));
    await writeResult(join(results, 'peers.json'), 'peers', PEERS);
    const kernel = { op: 'linear', shape: '1 x 2', microseconds: 1, gbps: 5, gflops: 5, intensity: 1 };
    const limits = { model: 'x', device: 'CPU', limit_read_gbps: 20, limit_gflops: 400 };
    await writeResult(join(results, 'kernels.json'), 'kernels', { ...limits, kernels: [kernel] });

    const files = await writeReport(results, join(folder, 'images'));
    expect(files.map((file) => file.split('/').at(-1))).toEqual([
      'throughput-by-batch.svg',
      'kernels-roofline.svg',
      'x-decode-beside-b.svg',
      'x-streams-beside-b.svg',
    ]);
    const [throughput, , decode, streams] = await Promise.all(files.map((file) => Bun.file(file).text()));
    expect(marks(throughput!)).toBe(3);
    const count = (svg: string, what: RegExp) => svg.match(what)?.length ?? 0;
    // Two engines at two batch sizes, with the limit of each; streams have no limit.
    expect(count(decode!, /<title>[ab] [^<]*batch/g)).toBe(4);
    expect(count(decode!, /<title>limit: /g)).toBe(2);
    expect(count(streams!, /<title>[ab] [^<]*stream/g)).toBe(2);
    expect(count(streams!, /limit: /g)).toBe(0);
    await expect(writeReport(join(folder, 'nowhere'), folder)).rejects.toThrow(/does not exist/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** Marks of measurements, without the legend's. */
function marks(svg: string): number {
  return svg.match(/<path class="f\d+" [^>]*><title>/g)?.length ?? 0;
}

function latencyResult(figures: object, head: Partial<AnyResult> = {}): AnyResult {
  return { ...asResult('latency', figures), ...head } as AnyResult;
}

/** What a chart's legend names. */
function legend(svg: string): string[] {
  return [...svg.matchAll(/<text x="612" [^>]*>([^<]*)</g)].map(([, name]) => name!);
}

test('throughput has a line for each quantization, and only of one machine and one length', () => {
  const { quantization, dtype, device, kv_cache_dtype, ...older } = figuresOf(32);
  const LIMITS = ['limit of x bfloat16', 'limit of x bfloat16, KV fp8_e4m3'];
  const results = [
    latencyResult(figuresOf(1)),
    latencyResult(figuresOf(8)),
    latencyResult(figuresOf(1, 'int8')),
    // An older file says it in its command alone.
    latencyResult(older, { command: 'bun bench latency --quantization int8 --batch-size 32' }),
    latencyResult({ ...figuresOf(8), kv_cache_dtype: 'fp8_e4m3' }),
    latencyResult({ ...figuresOf(64), output_len: 2 }),
    latencyResult({ ...figuresOf(64), input_len: 7 }),
    latencyResult(figuresOf(64), {
      date: '2020-01-01T00:00:00Z',
      machine: { ...asResult('latency', {}).machine, cpu: 'another' },
    }),
  ];
  const chart = drawCharts(results).get('throughput-by-batch.svg')!;
  expect(legend(chart)).toEqual(['x bfloat16', 'x int8', 'x bfloat16, KV fp8_e4m3', ...LIMITS]);
  expect(marks(chart)).toBe(5);
  // A limit has the colour of its line.
  const limitColors = [...chart.matchAll(/class="limit s(\d)"/g)].map(([, color]) => color);
  expect(limitColors).toEqual(['0', '2', '0', '2']);
});

test('a run of several batch sizes is a line, and each size is as it was measured last', () => {
  const sizes = (rate: number) => [1, 8].map((size) => ({ ...figuresOf(size), decode_tokens_per_s: rate * size }));
  const run = (date: string, rate: number) => {
    const figures: object = { ...ENGINE, quantization: 'none', batches: sizes(rate) };
    return { ...asResult('batches', figures), date } as AnyResult;
  };
  const values = (results: AnyResult[]) =>
    [
      ...drawCharts(results)
        .get('throughput-by-batch.svg')!
        .matchAll(/<title>(\d+)</g),
    ].map(([, value]) => value);
  const older = [1, 16].map((size) => latencyResult(figuresOf(size), { date: '2026-01-02' }));
  expect(values([run('2026-01-03', 22), ...older, run('2026-01-01', 33)])).toEqual(['22', '176', '160']);
  expect(values([run('2026-01-01', 33), ...older])).toEqual(['10', '264', '160']);
});

test('engines stand beside each other with each load as it was measured last', () => {
  const machine = { ...asResult('peers', {}).machine };
  const peers = (date: string, rows: PeersFigures['rows'], head: Partial<AnyResult> = {}) =>
    ({ ...asResult('peers', { ...PEERS, rows: beside(rows) }), date, machine, ...head }) as AnyResult;
  const beside = (rows: PeersFigures['rows']) => rows.flatMap((row) => [row, { ...row, peer: 'b' }]);
  const decode = { ...ROW, aspect: 'decode', limit_tokens_per_s: 40 } as const;
  const charts = drawCharts([
    peers('2026-03-01', [{ ...decode, tokens_per_s: 33 }]),
    peers('2026-04-01', [{ ...decode, tokens_per_s: 55 }], { quantization: 'int8' }),
    peers('2026-01-01', [
      { ...decode, tokens_per_s: 11 },
      { ...decode, tokens_per_s: 22, batch_size: 2 },
    ]),
    peers('2026-02-01', [{ ...decode, tokens_per_s: 44, batch_size: 4 }], { machine: { ...machine, cpu: 'another' } }),
  ]);
  const values = (name: string) =>
    [...charts.get(name)!.matchAll(/<title>a [^<]*batch (\d): (\d+)</g)].map(([, batch, value]) => [batch, value]);
  expect(values('x-decode-beside-b.svg')).toEqual([
    ['1', '33'],
    ['2', '22'],
  ]);
  expect(values('x-int8-decode-beside-b.svg')).toEqual([['1', '55']]);
});

test('a run that was cut off, or in which an engine failed, is drawn with what it has', () => {
  const { complete, ...older } = PEERS;
  const decode = { ...ROW, aspect: 'decode', limit_tokens_per_s: 40 } as const;
  const { tokens_per_s, tokens_per_s_rounds, ...load } = decode;
  const failed = { ...load, error: 'out of memory' };
  const [first, second] = [decode, { ...decode, batch_size: 2, tokens_per_s: 22 }];
  const result = (date: string, figures: object) => ({ ...asResult('peers', figures), date }) as AnyResult;
  const charts = drawCharts([
    result('2026-01-01', { ...older, rows: [first, { ...first, peer: 'b', tokens_per_s: 5 }] }),
    result('2026-01-02', {
      ...PEERS,
      complete: false,
      rows: [{ ...first, tokens_per_s: 11 }, { ...failed, peer: 'b' }, second, { ...second, peer: 'b' }],
    }),
    // The other engine has no figure at all.
    result('2026-01-03', {
      ...PEERS,
      rows: [
        { ...first, tokens_per_s: 77 },
        { ...failed, peer: 'b' },
      ],
    }),
    result('2026-01-04', { ...PEERS, versions: { a: '1.0', c: '1.0' }, rows: [failed, { ...failed, peer: 'c' }] }),
  ]);
  expect([...charts.keys()]).toEqual(['x-decode-beside-b.svg', 'x-decode-beside-nothing.svg']);
  const bars = [...charts.get('x-decode-beside-b.svg')!.matchAll(/<title>(\w) [^<]*batch (\d): (\d+)</g)];
  expect(bars.map(([, ...bar]) => bar.join(' '))).toEqual(['a 1 11', 'a 2 22', 'b 1 5', 'b 2 22']);
});

test('a chart of a machine that had other work says so', () => {
  const chartAt = (load: number) => {
    const machine = { ...asResult('latency', {}).machine, threads: 2, load_average: load };
    return drawCharts([latencyResult(figuresOf(1), { machine })]).get('throughput-by-batch.svg')!;
  };
  expect(chartAt(5)).toContain('with other work on the machine');
  expect(chartAt(2)).not.toContain('with other work');
});

test('latency is drawn against the rate that was asked for', () => {
  const serve = (rate: number | 'inf', maxConcurrency: number | null = null) => ({
    model_id: 'x',
    request_rate: rate,
    max_concurrency: maxConcurrency,
    completed: 2,
    total_input_tokens: 20,
    total_output_tokens: 40,
    median_ttft_ms: 5,
    p99_ttft_ms: 9,
    median_tpot_ms: 1,
    p99_tpot_ms: 2,
  });
  const loads = [serve(8), serve(2), serve('inf'), serve(4, 1), { ...serve(16), total_input_tokens: 200 }, serve(4)];
  const chart = drawCharts(loads.map((load) => asResult('serve', load) as unknown as AnyResult)).get(
    'latency-by-load.svg',
  )!;
  expect(legend(chart)).toEqual(['median TTFT', 'p99 TTFT', 'median TPOT', 'p99 TPOT']);
  expect(chart).toContain('x, 10 tokens in, 20 out');
  expect(marks(chart)).toBe(4 * 3);
});

test('the roofline is of the run with most ops, and of weights as they are', () => {
  const kernel = (op: string) => ({ op, shape: '1 x 2', microseconds: 1, gbps: 5, gflops: 5, intensity: 1 });
  const kernels = (ops: string[], quantization: string) =>
    asResult('kernels', {
      ...ENGINE,
      quantization,
      limit_read_gbps: 20,
      limit_gflops: 400,
      kernels: ops.map(kernel),
    }) as unknown as AnyResult;
  const charts = drawCharts([kernels(['a', 'b'], 'none'), kernels(['c'], 'none'), kernels(['a', 'b', 'd'], 'int8')]);
  expect(legend(charts.get('kernels-roofline.svg')!)).toEqual(['a', 'b', 'limit']);
});

test('a result that is cut off is named', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-report-'));
  try {
    const path = join(folder, 'cut.json');
    await Bun.write(path, '{"bench": "lat');
    const error = await writeReport(folder, folder).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toStartWith(`${path} is no JSON: `);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the results that come with Bao make the charts that the docs show', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-report-'));
  try {
    const root = join(import.meta.dir, '../..');
    const drawn = (await writeReport(join(root, 'bench/results'), folder)).map((file) => file.split('/').at(-1)!);
    expect(drawn.sort()).toEqual(readdirSync(join(root, 'docs/images/bench')).sort());
    const docs = await Bun.file(join(root, 'docs/performance.md')).text();
    expect(drawn.filter((name) => !docs.includes(`](images/bench/${name})`))).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a chart is well-formed whatever it shows', () => {
  const plain = { title: '', subtitle: '', x: { label: '' }, y: { label: '' } };
  const empty = lineChart({ ...plain, title: 'a < b & "c"', series: [] });
  expect(empty).toContain('a &#60; b &#38; &#34;c&#34;');
  const zero = lineChart({
    ...plain,
    y: { label: '', log: true },
    series: [{ name: 's', kind: 'line', points: [{ x: 0, y: 0 }] }],
  });
  const nothing = { ...plain, yLabel: '', categories: ['one'], limits: [null] };
  const bars = barChart({ ...nothing, series: [{ name: 's', values: [null] }] });
  for (const svg of [empty, zero, bars]) {
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    expect(svg.startsWith('<svg ')).toBe(true);
    expect(svg.endsWith('</svg>\n')).toBe(true);
  }
});
