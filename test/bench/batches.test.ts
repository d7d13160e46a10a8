import { describe, expect, spyOn, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCommand } from '../../bench/command.ts';
import {
  type BatchesFigures,
  batches,
  batchesTable,
  sizesFigures,
  turnsOfRound,
} from '../../bench/commands/batches.ts';
import { latency } from '../../bench/commands/latency.ts';
import type { BatchTurn } from '../../bench/offline/batch-figures.ts';
import type { Result } from '../../bench/results.ts';
import { UsageError } from '../../src/config/config-error.ts';

const COST = { weightBytes: 1e9, flopsPerToken: 1e9, kvBytes: () => 0 };

/** A prefill of 1 s, then 16 steps, `rate` of them a second, between limits of `gbps` and 128 GFLOP/s. */
function turn(batchSize: number, rate: number, gbps: number): BatchTurn {
  const times = { prefill: 1, total: 1 + 16 / rate, decodeTokens: 16 * batchSize };
  return { times: [times], limits: { read_gbps: gbps, gflops: 128, bf16_dot_gflops: 64 }, hostShare: rate / 1000 };
}

/** Three rounds, in whose second the machine gives half. */
const FIGURES = sizesFigures(
  [1, 8].map((batchSize) => ({ batchSize, inputLen: 100, outputLen: 17 })),
  [
    [turn(1, 16, 16), turn(1, 8, 8), turn(1, 16, 20)],
    [turn(8, 8, 8), turn(8, 4, 8), turn(8, 16, 20)],
  ],
  COST,
);

describe('figures', () => {
  test('a round begins with the next size, and has each once', () => {
    expect([0, 1, 2, 3].map((round) => turnsOfRound(3, round))).toEqual([
      [0, 1, 2],
      [1, 2, 0],
      [2, 0, 1],
      [0, 1, 2],
    ]);
  });

  test('times the first size is of the same round, and a share of the same turn', () => {
    const [one, eight] = FIGURES;
    expect(one).toMatchObject({ decode_speedup: 1, min_decode_speedup: 1, max_decode_speedup: 1 });
    expect(eight!.rounds.map((round) => round.decode_speedup)).toEqual([4, 4, 8]);
    expect(eight).toMatchObject({ decode_speedup: 4, min_decode_speedup: 4, max_decode_speedup: 8 });
    // A step reads 1 GB: 1, 0.5 and 0.8 of what there was, though the medians are 8 of 8 GB/s.
    expect(eight).toMatchObject({ decode_read_gbps: 8, limit_read_gbps: 8, decode_read_share: 0.8 });
    expect(eight).toMatchObject({ decode_gflops: 64, limit_gflops: 128, decode_gflops_share: 0.5 });
  });

  test('the rest is the median of the rounds, in the names of bench latency', () => {
    const [, eight] = FIGURES;
    expect(eight).toMatchObject({
      ...{ batch_size: 8, input_len: 100, output_len: 17 },
      latencies: [3, 5, 2],
      prefill_tokens_per_s: 800,
      decode_tokens_per_s: 64,
      limit_bf16_dot_gflops: 64,
      host_share: 0.008,
    });
    expect(eight!.rounds[1]).toMatchObject({ latency: 5, decode_tokens_per_s: 32, limit_read_gbps: 8 });
  });

  test('the table has a line for each size', () => {
    const engine = { model: 'x', quantization: 'none', dtype: 'bfloat16', kv_cache_dtype: 'bfloat16', device: 'CPU' };
    const lines = batchesTable({ ...engine, batches: FIGURES }).split('\n');
    expect(lines).toContain('Read bandwidth              8 to 20 GB/s');
    expect(lines).toContain('Batches                     100 tokens in, 17 out, 3 of each size');
    const cells = lines.slice(-3).map((line) => line.trim().split(/ {2,}/));
    expect(cells).toEqual([
      ['1', '100', '16', '1.00 (1.00 to 1.00)', '16 (1.00)', '16 (0.13)', '1.60 %'],
      ['8', '800', '64', '4.00 (4.00 to 8.00)', '8 (0.80)', '64 (0.50)', '0.80 %'],
      [''],
    ]);
    expect(lines.at(-5)).toContain('times batch 1');
  });
});

/** What `bun bench` does with a line of flags. */
async function run(command: typeof batches, line: string): Promise<void> {
  const parsed = await parseCommand(command, line.split(' '), {});
  if (parsed.help) throw new Error('help was not asked for');
  await command.run(parsed.values, parsed.engine);
}

test('sizes take turns on one engine', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-batches-'));
  const stdout = spyOn(process.stdout, 'write').mockReturnValue(true);
  try {
    const file = join(folder, 'batches.json');
    const lengths = '--input-len 8 --output-len 4 --num-rounds 1 --num-rounds-warmup 0';
    await run(batches, `--model demo --batch-sizes 1,3 ${lengths} --output-json ${file}`);
    const result = (await Bun.file(file).json()) as Result<BatchesFigures>;
    expect(stdout.mock.calls).toEqual([[batchesTable(result)]]);
    expect(result).toMatchObject({ benchmark: 'batches', model: 'demo' });
    expect(result.batches.map(({ batch_size, rounds }) => [batch_size, rounds.length])).toEqual([
      [1, 1],
      [3, 1],
    ]);
    for (const size of result.batches) {
      expect(size).toMatchObject({ input_len: 8, output_len: 4 });
      expect(size.decode_tokens_per_s).toBeGreaterThan(0);
      expect(size.rounds[0]!.limit_read_gbps).toBeGreaterThan(0);
    }
    expect(result.batches[0]!.decode_speedup).toBe(1);
  } finally {
    stdout.mockRestore();
    rmSync(folder, { recursive: true });
  }
});

test.each([
  ['batches --batch-sizes 1,8 --max-num-seqs 4', /batch of 8 .* step of 4 requests: give --max-num-seqs 8/],
  ['latency --batch-size 8 --max-num-seqs 4', /batch of 8 .* step of 4 requests: give --max-num-seqs 8/],
  ['batches --batch-sizes=', /--batch-sizes has no size/],
  ['batches --batch-sizes 1,x', /--batch-sizes takes whole numbers above 0, not "1,x"/],
])('%p is refused', async (line, message) => {
  const [name, ...flags] = line.split(' ');
  const refused = run(name === 'latency' ? latency : batches, `--model demo ${flags.join(' ')}`);
  await expect(refused).rejects.toThrow(UsageError);
  await expect(refused).rejects.toThrow(message);
});
