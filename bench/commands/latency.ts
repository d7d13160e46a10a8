import { EngineArgs } from '../../src/config/engine-args.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { describeEngine, type EngineFacts, engineFacts } from '../engine-facts.ts';
import type { Limits } from '../limit-meter.ts';
import { withLimits } from '../limits.ts';
import { type ModelCost, modelCost } from '../offline/model-cost.ts';
import { type BatchShape, type BatchTimes, batchRates, runBatch } from '../offline/run-batch.ts';
import { seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { mean, median, percentile } from '../statistics.ts';
import { formatPairs, shortNumber, withShare } from '../table.ts';

/** Until the statistics of a core that has become idle have surely come. */
const STATS_DELAY_MS = 50;
const PERCENTILES = [10, 25, 50, 75, 90, 99];

/** The JSON of `bun bench latency`: vLLM's fields, then rates beside the limits measured in the same run. */
export interface LatencyFigures extends EngineFacts {
  device: string;
  batch_size: number;
  input_len: number;
  output_len: number;
  /** Seconds. */
  avg_latency: number;
  latencies: number[];
  percentiles: Record<string, number>;
  prefill_tokens_per_s: number;
  prefill_gflops: number;
  limit_gflops: number;
  limit_bf16_dot_gflops?: number;
  decode_tokens_per_s: number;
  decode_read_gbps: number;
  limit_read_gbps: number;
  /** Share of the steps' time in which the engine's loop scheduled, laid out inputs and took results, in place of computing or waiting for the device. */
  host_share: number;
}

/** Rates are medians over the iterations. */
export function latencyFigures(
  engine: EngineFacts & { device: string },
  shape: BatchShape,
  iterations: readonly BatchTimes[],
  cost: ModelCost,
  limits: Limits,
  hostShare: number,
): LatencyFigures {
  const latencies = iterations.map((times) => times.total);
  const rates = iterations.map((times) => batchRates(shape, times, cost));
  return {
    ...engine,
    batch_size: shape.batchSize,
    input_len: shape.inputLen,
    output_len: shape.outputLen,
    avg_latency: mean(latencies),
    latencies,
    percentiles: Object.fromEntries(PERCENTILES.map((percent) => [percent, percentile(latencies, percent)])),
    prefill_tokens_per_s: median(rates.map((rate) => rate.prefillTokensPerS)),
    prefill_gflops: median(rates.map((rate) => rate.prefillGflops)),
    limit_gflops: limits.gflops,
    ...(limits.bf16_dot_gflops !== undefined && { limit_bf16_dot_gflops: limits.bf16_dot_gflops }),
    decode_tokens_per_s: median(rates.map((rate) => rate.decodeTokensPerS)),
    decode_read_gbps: median(rates.map((rate) => rate.decodeReadGbps)),
    limit_read_gbps: limits.read_gbps,
    host_share: hostShare,
  };
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
    ['  GB/s (of limit)', withShare(figures.decode_read_gbps, figures.limit_read_gbps)],
    ['  read bandwidth', `${shortNumber(figures.limit_read_gbps)} GB/s`],
    ["The loop's own share of a step", `${(100 * figures.host_share).toFixed(2)} %`],
  ]);
}

/** Runs batches of one shape on an engine of their own. */
export async function measureLatency(
  engineArgs: EngineArgs,
  shape: BatchShape,
  iterations: { warmup: number; measured: number },
): Promise<LatencyFigures> {
  const engine = await OfflineEngine.start(engineArgs);
  try {
    const random = seededRandom(engineArgs.values.seed);
    for (let i = 0; i < iterations.warmup; i++) await runBatch(engine, shape, random);
    const before = await coreTimes(engine);
    const {
      value: times,
      limits,
      device,
    } = await withLimits(engine.config, async () => {
      const measured: BatchTimes[] = [];
      for (let i = 0; i < iterations.measured; i++) measured.push(await runBatch(engine, shape, random));
      return measured;
    });
    const after = await coreTimes(engine);
    const hostShare = (after.hostMs - before.hostMs) / (after.stepMs - before.stepMs);
    const facts = { ...engineFacts(engine.config), device };
    return latencyFigures(facts, shape, times, await modelCost(engine.config), limits, hostShare);
  } finally {
    await engine.close();
  }
}

/** Time of the core's steps so far, and of that its own work. */
async function coreTimes({ client }: OfflineEngine): Promise<{ stepMs: number; hostMs: number }> {
  // A core that has nothing more to do sends its statistics once.
  await Bun.sleep(STATS_DELAY_MS);
  const { stepMs = 0, hostMs = 0 } = client.stats()[0] ?? {};
  return { stepMs, hostMs };
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
    // Prompts are random, so a prefix cache could only cost.
    const engineArgs = new EngineArgs({ enablePrefixCaching: false, ...engine });
    const figures = await measureLatency(engineArgs, values, {
      warmup: values.numItersWarmup,
      measured: values.numIters,
    });
    process.stdout.write(latencyTable(figures));
    await writeResult(values.outputJson, 'latency', figures);
  },
});
