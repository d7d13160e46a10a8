import { expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { latencyFigures } from '../../bench/commands/latency.ts';
import { writeReport } from '../../bench/commands/report.ts';
import type { PeersFigures } from '../../bench/peers/measure.ts';
import { barChart, lineChart } from '../../bench/report/svg.ts';
import { writeResult } from '../../bench/results.ts';

const COST = { weightBytes: 1e9, flopsPerToken: 1e9, kvBytes: () => 0 };

/** A batch of which every step took 0.1 s after a prefill of 1 s. */
function figuresOf(batchSize: number) {
  const times = { prefill: 1, total: 2, decodeTokens: 10 * batchSize };
  const shape = { batchSize, inputLen: 100, outputLen: 11 };
  return latencyFigures('shapes/x', shape, [times, times], COST, { read_gbps: 20, gflops: 400 }, 0.01);
}

test('latency figures are rates beside limits, in the field names of vLLM', () => {
  const figures = figuresOf(4);
  expect(figures).toMatchObject({ avg_latency: 2, latencies: [2, 2], prefill_tokens_per_s: 400, prefill_gflops: 400 });
  expect(Object.keys(figures.percentiles)).toEqual(['10', '25', '50', '75', '90', '99']);
  expect(figures.decode_tokens_per_s).toBe(40);
  expect(figures.decode_read_gbps).toBe(10);
  expect(figures.limit_read_gbps).toBe(20);
  expect(figures.host_share).toBe(0.01);
});

const ROW = { peer: 'a', batch_size: 1, input_len: 4, output_len: 4, tokens_per_s: 10, tokens_per_s_rounds: [10] };

const PEERS: PeersFigures = {
  model: 'shapes/x',
  quantization: 'none',
  threads: 1,
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
      'peers-decode.svg',
      'peers-streams.svg',
    ]);
    const [throughput, , decode, streams] = await Promise.all(files.map((file) => Bun.file(file).text()));
    expect(throughput!.match(/<circle/g)).toHaveLength(3);
    const bars = /<rect x="[^"]*" y="[^"]*" width="[^"]*" height="[^"]*" fill="[^"]*"><title>/g;
    // Two engines and the limit at two batch sizes; streams have no limit.
    expect(decode!.match(bars)).toHaveLength(6);
    expect(streams!.match(bars)).toHaveLength(2);
    await expect(writeReport(join(folder, 'nowhere'), folder)).rejects.toThrow(/does not exist/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a chart is well-formed whatever it shows', () => {
  const empty = lineChart({ title: 'a < b & "c"', xLabel: '', yLabel: '', series: [] });
  expect(empty).toContain('a &#60; b &#38; &#34;c&#34;');
  const zero = lineChart({
    title: '',
    xLabel: '',
    yLabel: '',
    series: [{ name: 's', points: [{ x: 0, y: 0 }] }],
    yLog: true,
  });
  const bars = barChart({ title: '', yLabel: '', categories: ['one'], series: [{ name: 's', values: [null] }] });
  for (const svg of [empty, zero, bars]) {
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    expect(svg.startsWith('<svg ')).toBe(true);
    expect(svg.endsWith('</svg>\n')).toBe(true);
  }
});
