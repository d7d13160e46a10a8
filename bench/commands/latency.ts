import type { FlagValues } from '../../src/config/flags/index.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { describeEngine, type EngineFacts } from '../engine-facts.ts';
import { BatchBench } from '../offline/batch-bench.ts';
import { type BatchFigures, batchFigures } from '../offline/batch-figures.ts';
import type { BatchShape } from '../offline/run-batch.ts';
import { writeResult } from '../results.ts';
import { formatPairs, shortNumber, withShare } from '../table.ts';

/** The JSON of `bun bench latency`. */
export interface LatencyFigures extends EngineFacts, BatchFigures {
  device: string;
}

export function latencyTable(figures: LatencyFigures): string {
  const seconds = (value: number) => `${value.toFixed(3)} s`;
  return formatPairs([
    ['Model', describeEngine(figures)],
    ['Device', figures.device],
    ['Batch', `${figures.batch_size} x ${figures.input_len} tokens in, ${figures.output_len} out`],
    ['Mean latency', seconds(figures.avg_latency)],
    ...Object.entries(figures.percentiles).map(([percent, value]) => [`  p${percent}`, seconds(value)] as const),
    ['Prefill', `${shortNumber(figures.prefill_tokens_per_s)} tok/s`],
    ['  GFLOP/s (of peak)', withShare(figures.prefill_gflops, figures.limit_gflops)],
    ['  peak of products', `${shortNumber(figures.limit_gflops)} GFLOP/s`],
    ...(figures.limit_bf16_dot_gflops === undefined
      ? []
      : [['  peak of bfloat16 dot products', `${shortNumber(figures.limit_bf16_dot_gflops)} GFLOP/s`] as const]),
    ['Decode', `${shortNumber(figures.decode_tokens_per_s)} tok/s`],
    ['  GFLOP/s (of peak)', withShare(figures.decode_gflops, figures.limit_gflops)],
    ['  GB/s (of limit)', withShare(figures.decode_read_gbps, figures.limit_read_gbps)],
    ['  read bandwidth', `${shortNumber(figures.limit_read_gbps)} GB/s`],
    ["The loop's own share of a step", `${(100 * figures.host_share).toFixed(2)} %`],
  ]);
}

/** Runs batches of one shape on an engine of their own, which has the flags that are given. */
export async function measureLatency(
  given: Partial<FlagValues>,
  shape: BatchShape,
  iterations: { warmup: number; measured: number },
): Promise<LatencyFigures> {
  const bench = await BatchBench.start(given, shape.batchSize);
  try {
    await bench.run(shape, iterations.warmup);
    const turn = await bench.takeTurn(shape, iterations.measured);
    return { ...bench.facts, ...batchFigures(shape, [turn], bench.cost) };
  } finally {
    await bench.close();
  }
}

export const latency = defineCommand({
  name: 'latency',
  doc: 'Time of one batch on the engine, without HTTP: prefill and decode beside the limits of the machine.',
  flags: {
    'input-len': { type: 'tokens', default: 32, min: 1, help: 'Tokens of each prompt.' },
    'output-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens generated for each prompt.' },
    'batch-size': { type: 'int', default: 8, min: 1, help: 'Prompts at once.' },
    'num-iters': { type: 'int', default: 30, min: 1, help: 'Batches that are measured.' },
    'num-iters-warmup': { type: 'int', default: 10, min: 0, help: 'Batches before those.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, engine) {
    const figures = await measureLatency(engine, values, {
      warmup: values.numItersWarmup,
      measured: values.numIters,
    });
    process.stdout.write(latencyTable(figures));
    await writeResult(values.outputJson, 'latency', figures);
  },
});
