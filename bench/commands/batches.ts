import { UsageError } from '../../src/config/config-error.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { defineCommand, OUTPUT_JSON, parseSizes, SIZES } from '../command.ts';
import { describeEngine, type EngineFacts } from '../engine-facts.ts';
import { BatchBench } from '../offline/batch-bench.ts';
import {
  type BatchFigures,
  type BatchTurn,
  batchFigures,
  type RateFigures,
  rateFigures,
} from '../offline/batch-figures.ts';
import type { ModelCost } from '../offline/model-cost.ts';
import type { BatchShape } from '../offline/run-batch.ts';
import { writeResult } from '../results.ts';
import { median } from '../statistics.ts';
import { formatPairs, formatTable, shortNumber } from '../table.ts';

/** A turn of one size, beside the limits right before and right after it. */
export interface RoundFigures extends RateFigures {
  /** Seconds. */
  latency: number;
  /** Decode tokens a second, times those of the first size in the same round. */
  decode_speedup: number;
}

/** Medians over the rounds; shares are of each turn's own limits. */
export interface SizeFigures extends BatchFigures {
  decode_speedup: number;
  min_decode_speedup: number;
  max_decode_speedup: number;
  decode_gflops_share: number;
  decode_read_share: number;
  rounds: RoundFigures[];
}

/** The JSON of `bun bench batches`: an entry for each size, with the fields of `bun bench latency`. */
export interface BatchesFigures extends EngineFacts {
  device: string;
  batches: SizeFigures[];
}

/** Places in the list of sizes in the order of their turns: each round begins with the next one. */
export function turnsOfRound(numSizes: number, round: number): number[] {
  return Array.from({ length: numSizes }, (_, place) => (place + round) % numSizes);
}

/** @param turns of each shape, one a round */
export function sizesFigures(
  shapes: readonly BatchShape[],
  turns: readonly (readonly BatchTurn[])[],
  cost: ModelCost,
): SizeFigures[] {
  const rates = shapes.map((shape, index) => turns[index]!.map((turn) => rateFigures(shape, [turn], cost)));
  return shapes.map((shape, index) => {
    const rounds = rates[index]!.map((own, round) => ({
      latency: turns[index]![round]!.times[0]!.total,
      ...own,
      decode_speedup: own.decode_tokens_per_s / rates[0]![round]!.decode_tokens_per_s,
    }));
    const speedups = rounds.map((round) => round.decode_speedup);
    return {
      ...batchFigures(shape, turns[index]!, cost),
      decode_speedup: median(speedups),
      min_decode_speedup: Math.min(...speedups),
      max_decode_speedup: Math.max(...speedups),
      decode_gflops_share: median(rounds.map((round) => round.decode_gflops / round.limit_gflops)),
      decode_read_share: median(rounds.map((round) => round.decode_read_gbps / round.limit_read_gbps)),
      rounds,
    };
  });
}

export function batchesTable(figures: BatchesFigures): string {
  const { batches } = figures;
  const [first] = batches;
  const rounds = batches.flatMap((size) => size.rounds);
  const dots = rounds.map((round) => round.limit_bf16_dot_gflops).filter((rate) => rate !== undefined);
  const head = formatPairs([
    ['Model', describeEngine(figures)],
    ['Device', figures.device],
    ['Batches', `${first!.input_len} tokens in, ${first!.output_len} out, ${first!.rounds.length} of each size`],
    ['Read bandwidth', `${range(rounds.map((round) => round.limit_read_gbps))} GB/s`],
    ['Peak of products', `${range(rounds.map((round) => round.limit_gflops))} GFLOP/s`],
    ...(dots.length === 0 ? [] : [['  of bfloat16 dot products', `${range(dots)} GFLOP/s`] as const]),
  ]);
  const titles = [
    ...['batch', 'prefill tok/s', 'decode tok/s', `times batch ${first!.batch_size}`, 'GB/s (of limit)'],
    ...['GFLOP/s (of peak)', "the loop's own share"],
  ];
  const rows = batches.map((size) => [
    String(size.batch_size),
    shortNumber(size.prefill_tokens_per_s),
    shortNumber(size.decode_tokens_per_s),
    `${size.decode_speedup.toFixed(2)} (${size.min_decode_speedup.toFixed(2)} to ${size.max_decode_speedup.toFixed(2)})`,
    `${shortNumber(size.decode_read_gbps)} (${size.decode_read_share.toFixed(2)})`,
    `${shortNumber(size.decode_gflops)} (${size.decode_gflops_share.toFixed(2)})`,
    `${(100 * size.host_share).toFixed(2)} %`,
  ]);
  return `${head}\n${formatTable(titles, rows)}`;
}

function range(values: readonly number[]): string {
  return `${shortNumber(Math.min(...values))} to ${shortNumber(Math.max(...values))}`;
}

/** Runs batches of several shapes on one engine, each shape once a round. */
export async function measureBatches(
  given: Partial<FlagValues>,
  shapes: readonly BatchShape[],
  rounds: { warmup: number; measured: number },
): Promise<BatchesFigures> {
  const bench = await BatchBench.start(given, Math.max(...shapes.map(({ batchSize }) => batchSize)));
  try {
    for (let round = 0; round < rounds.warmup; round++) {
      for (const shape of shapes) await bench.run(shape, 1);
    }
    const turns = shapes.map((): BatchTurn[] => []);
    for (let round = 0; round < rounds.measured; round++) {
      for (const index of turnsOfRound(shapes.length, round)) {
        turns[index]!.push(await bench.takeTurn(shapes[index]!, 1));
      }
    }
    return { ...bench.facts, batches: sizesFigures(shapes, turns, bench.cost) };
  } finally {
    await bench.close();
  }
}

export const batches = defineCommand({
  name: 'batches',
  doc: 'Batches of several sizes in turn on one engine, without HTTP: how many times the first size the others decode, each beside the limits right around its turn.',
  flags: {
    'batch-sizes': { ...SIZES, default: ['1', '8', '16', '32'], help: 'Prompts at once, in each round once.' },
    'input-len': { type: 'tokens', default: 32, min: 1, help: 'Tokens of each prompt.' },
    'output-len': { type: 'tokens', default: 48, min: 2, help: 'Tokens generated for each prompt.' },
    'num-rounds': {
      type: 'int',
      default: 5,
      min: 1,
      help: 'Rounds that are measured, each beginning with another size.',
    },
    'num-rounds-warmup': { type: 'int', default: 1, min: 0, help: 'Rounds before those.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, engine) {
    const { inputLen, outputLen } = values;
    const sizes = parseSizes('batch-sizes', values.batchSizes);
    if (sizes.length === 0) throw new UsageError('Nothing to measure: --batch-sizes has no size.');
    const shapes = sizes.map((batchSize) => ({ batchSize, inputLen, outputLen }));
    const rounds = { warmup: values.numRoundsWarmup, measured: values.numRounds };
    const figures = await measureBatches(engine, shapes, rounds);
    process.stdout.write(batchesTable(figures));
    await writeResult(values.outputJson, 'batches', figures);
  },
});
