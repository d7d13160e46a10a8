import { EngineArgs } from '../../src/config/engine-args.ts';
import { createDevice } from '../../src/device/create-device.ts';
import type { Device } from '../../src/device/device.ts';
import { isQuantizationScheme } from '../../src/device/quantization-scheme.ts';
import { defineCommand, OUTPUT_JSON, parseSizes, SIZES } from '../command.ts';
import { describeEngine, type EngineFacts, engineFacts } from '../engine-facts.ts';
import { type KernelBatch, type KernelCase, KernelCases } from '../kernels/cases.ts';
import type { Limits } from '../limit-meter.ts';
import { withLimits } from '../limits.ts';
import { writeResult } from '../results.ts';
import { median } from '../statistics.ts';
import { formatTable, shortNumber, withShare } from '../table.ts';

const MIN_ROUNDS = 5;
/** A round is long enough that enqueueing and waiting do not count. */
const ROUND_MS = 2;
const MAX_ROUND_MS = 4;
const MAX_CALLS = 512;

/** A line of the JSON of `bun bench kernels`. */
export interface KernelFigures {
  op: string;
  shape: string;
  microseconds: number;
  /** Bytes that the op must move at the least over its time, GB/s; above the limit where they come from a cache. */
  gbps: number;
  gflops: number;
  /** Floating point operations a byte. */
  intensity: number;
}

export interface KernelsFigures extends EngineFacts {
  device: string;
  limit_read_gbps: number;
  limit_gflops: number;
  kernels: KernelFigures[];
}

function measureCase(device: Device, kernel: KernelCase, budgetMs: number): KernelFigures {
  // Every round is the same calls, so that a device which can replay them spends no time on enqueueing.
  const round = (count: number) => {
    const started = performance.now();
    device.replayable(() => {
      for (let turn = 0; turn < count; turn++) kernel.enqueue(turn);
    });
    device.wait(device.record());
    return performance.now() - started;
  };
  round(1);
  const once = round(1);
  // Through all copies of the weights where there is the time, so that they come from memory.
  const cycle = Math.min(kernel.copies, Math.ceil(MAX_ROUND_MS / once));
  const count = Math.min(MAX_CALLS, Math.max(cycle, Math.ceil(ROUND_MS / once)));
  // What is new to such a device it does step by step once.
  round(count);
  const rounds: number[] = [];
  const end = performance.now() + budgetMs;
  while (rounds.length < MIN_ROUNDS || performance.now() < end) rounds.push(round(count) / count);
  const seconds = median(rounds) / 1000;
  return {
    op: kernel.op,
    shape: kernel.shape,
    microseconds: seconds * 1e6,
    gbps: kernel.bytes / seconds / 1e9,
    gflops: kernel.flops / seconds / 1e9,
    intensity: kernel.flops / kernel.bytes,
  };
}

export function kernelsTable(figures: KernelsFigures): string {
  const limits: Limits = { read_gbps: figures.limit_read_gbps, gflops: figures.limit_gflops };
  const rows = figures.kernels.map((kernel) => [
    kernel.op,
    kernel.shape,
    kernel.microseconds.toFixed(1),
    withShare(kernel.gbps, limits.read_gbps),
    kernel.gflops === 0 ? '' : withShare(kernel.gflops, limits.gflops),
  ]);
  const head = `${describeEngine(figures)}\n${figures.device}: ${shortNumber(limits.read_gbps)} GB/s read, ${shortNumber(limits.gflops)} GFLOP/s of products\n\n`;
  return head + formatTable(['op', 'shape', 'us', 'GB/s (of limit)', 'GFLOP/s (of peak)'], rows);
}

export async function measureKernels(
  engineArgs: EngineArgs,
  batches: readonly KernelBatch[],
  options: { ops: readonly string[]; budgetMs: number },
): Promise<KernelsFigures> {
  const config = await engineArgs.createEngineConfig();
  const device = await createDevice(config.device.device, {
    threads: config.device.cpuThreads,
    activationDtype: config.model.dtype,
    replaySizes: [1],
  });
  try {
    const { hf, dtype, quantization } = config.model;
    const { enableLora, maxLoras: numAdapters, maxLoraRank: rank } = config.lora;
    const scheme = isQuantizationScheme(quantization) ? quantization : null;
    const cases = new KernelCases(
      device,
      hf,
      dtype,
      config.cache.kvCacheDtype,
      batches,
      scheme,
      enableLora ? { numAdapters, rank } : null,
      options.ops,
    ).all();
    const { value: kernels, limits } = await withLimits(config, async () =>
      cases.map((kernel) => measureCase(device, kernel, options.budgetMs)),
    );
    return {
      ...engineFacts(config),
      device: device.description,
      limit_read_gbps: limits.read_gbps,
      limit_gflops: limits.gflops,
      kernels,
    };
  } finally {
    device.close();
  }
}

export const kernels = defineCommand({
  name: 'kernels',
  doc: 'Each op over the shapes of a model, beside the limits of the machine.',
  flags: {
    'batch-sizes': { ...SIZES, default: ['1', '16'], help: 'Sequences that decode together.' },
    'context-len': { type: 'tokens', default: 1024, min: 1, help: 'Tokens before those of a decode step.' },
    'prefill-len': { type: 'tokens', default: 512, min: 1, help: 'Tokens of the prefill batch.' },
    ops: { type: 'list', default: [], separator: ',', metavar: 'OPS', help: 'Only these ops.' },
    'budget-ms': { type: 'int', default: 100, min: 1, help: 'Time for each op on each shape.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, given) {
    const engineArgs = new EngineArgs({
      model: 'bench/shapes/0.5b',
      loadFormat: 'dummy',
      skipTokenizerInit: true,
      ...given,
    });
    const batches = [
      ...parseSizes('batch-sizes', values.batchSizes).map((numSeqs) => ({
        numSeqs,
        newTokens: 1,
        context: values.contextLen,
      })),
      { numSeqs: 1, newTokens: values.prefillLen, context: values.prefillLen },
    ];
    const figures = await measureKernels(engineArgs, batches, { ops: values.ops, budgetMs: values.budgetMs });
    process.stdout.write(kernelsTable(figures));
    await writeResult(values.outputJson, 'kernels', figures);
  },
});
