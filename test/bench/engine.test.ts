import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { measureKernels } from '../../bench/commands/kernels.ts';
import { measurePerplexity } from '../../bench/commands/perplexity.ts';
import { measureScheduler } from '../../bench/commands/scheduler.ts';
import { measureThroughput } from '../../bench/commands/throughput.ts';
import { openLimitMeter } from '../../bench/limits.ts';
import { modelCost } from '../../bench/offline/model-cost.ts';
import { batchRates, fixedLengthParams, runBatch } from '../../bench/offline/run-batch.ts';
import { seededRandom } from '../../bench/random.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { OPS } from '../../src/device/ops.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';

const QUIET = { logLevel: 'warning' } as const;

describe('offline', () => {
  let engine: OfflineEngine;
  beforeAll(async () => {
    engine = await OfflineEngine.start(new EngineArgs({ ...QUIET, model: 'demo', enablePrefixCaching: false }));
  });
  afterAll(() => engine.close());

  test('a batch has its phases and its rates', async () => {
    const shape = { batchSize: 3, inputLen: 16, outputLen: 6 };
    const times = await runBatch(engine, shape, seededRandom(1));
    // A step may begin before all requests have arrived.
    expect(times.decodeTokens).toBeGreaterThan(0);
    expect(times.decodeTokens).toBeLessThanOrEqual(3 * 5);
    expect(times.prefill).toBeGreaterThan(0);
    expect(times.total).toBeGreaterThan(times.prefill);
    const rates = batchRates(shape, times, await modelCost(engine.config));
    for (const rate of Object.values(rates)) expect(rate).toBeGreaterThan(0);
  });

  test('throughput counts requests and tokens', async () => {
    const figures = await measureThroughput(engine, { numPrompts: 5, inputLen: 8, outputLen: 4 });
    expect(figures).toMatchObject({ model: 'demo', num_requests: 5, total_num_tokens: 60, total_output_tokens: 20 });
    expect(figures.requests_per_second).toBeCloseTo(5 / figures.elapsed_time, 6);
  });

  test('a prompt that the model refuses fails the batch and leaves nothing behind', async () => {
    const params = fixedLengthParams(4);
    const requests = [
      { promptTokenIds: Int32Array.of(1, 2), params },
      { promptTokenIds: Int32Array.of(-1), params },
    ];
    await expect(engine.generate(requests)).rejects.toThrow(ValidationError);
    expect(engine.client.numUnfinishedRequests).toBe(0);
  });
});

test('a step of the 0.5b shape reads 946 MB and its tokens cost 0.88 GFLOP', async () => {
  const config = await new EngineArgs({
    model: 'bench/shapes/0.5b',
    loadFormat: 'dummy',
    skipTokenizerInit: true,
  }).createEngineConfig();
  const cost = await modelCost(config);
  expect(Math.round(cost.weightBytes / 1e6)).toBe(946);
  expect((cost.flopsPerToken / 1e9).toFixed(2)).toBe('0.88');
  expect(cost.kvBytes(100)).toBe(100 * 28 * 2 * 8 * 128 * 2);
});

test('quantized weights count with the bytes that they have', async () => {
  const shape = { model: 'bench/shapes/0.5b', loadFormat: 'dummy', skipTokenizerInit: true } as const;
  const bytes = async (quantization: string | null) => {
    const config = await new EngineArgs({ ...shape, quantization }).createEngineConfig();
    return { config, bytes: (await modelCost(config)).weightBytes };
  };
  const plain = await bytes(null);
  const head = (plain.config.model.hf.vocabSize * plain.config.model.hf.hiddenSize) / plain.bytes;
  // 8 bits and 4 bytes for 128 of them; 4 bits and 4 bytes for 64, with an output layer of 8.
  const int8 = (1 + 4 / 128) / 2;
  const int4 = (0.5 + 4 / 64) / 2;
  expect((await bytes('int8')).bytes / plain.bytes).toBeCloseTo(int8, 3);
  expect((await bytes('int4')).bytes / plain.bytes).toBeCloseTo(int4 + 2 * head * (int8 - int4), 3);
});

test('answers are read with each quantization', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-perplexity-'));
  try {
    const conversations = join(folder, 'conversations.jsonl');
    const messages = [
      { role: 'user', content: 'What is the capital of France?' },
      { role: 'assistant', content: 'The capital of France is Paris.' },
    ];
    await Bun.write(conversations, `${JSON.stringify({ messages })}\n`);
    const given = { ...QUIET, model: 'demo' };
    const figures = await measurePerplexity(given, ['none', 'int4'], conversations, 16);
    expect(figures).toMatchObject({
      num_answers: 1,
      rows: [{ logprob_change: 0, equal_answers: 1 }, { equal_answers: 1 }],
    });
    expect(figures.num_answer_tokens).toBeGreaterThan(4);
    for (const { perplexity } of figures.rows) expect(perplexity).toBeWithin(1, 1.1);
    expect(figures.rows[1]!.logprob_change).toBeGreaterThan(0);

    await Bun.write(conversations, '{"messages": "hello"}\n');
    await expect(measurePerplexity(given, ['none'], conversations, 16)).rejects.toThrow('line 1: expected {"messages"');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.each(['cpu', 'cuda-emulation'] as const)('limits of %s are measured', async (device) => {
  const meter = await openLimitMeter({ device, cpuThreads: 1, dtype: 'bfloat16' });
  try {
    const { read_gbps, gflops } = meter.measure();
    expect(read_gbps).toBeGreaterThan(0);
    expect(gflops).toBeGreaterThan(0);
  } finally {
    meter.close();
  }
});

test('every kernel case of a small model runs', async () => {
  const batches = [
    { numSeqs: 2, newTokens: 1, context: 20 },
    { numSeqs: 1, newTokens: 16, context: 16 },
  ];
  const given = { ...QUIET, model: 'demo', loadFormat: 'dummy', quantization: 'int8', kvCacheDtype: 'fp8' } as const;
  const engineArgs = new EngineArgs(given);
  const figures = await measureKernels(engineArgs, batches, { ops: [], budgetMs: 1 });
  expect(figures.kernels.filter(({ op }) => op === 'quantized_linear').length).toBeGreaterThan(0);
  for (const kernel of figures.kernels) {
    expect(Object.keys(OPS)).toContain(kernel.op);
    expect(kernel.gbps).toBeGreaterThan(0);
  }
  expect(figures.kernels.map(({ shape }) => shape)).toContain('2 x 1 new of 20, fp8_e4m3');
  const linears = figures.kernels.filter(({ op }) => op === 'linear').map(({ shape }) => shape.split(':')[0]);
  expect(new Set(linears)).toEqual(new Set(['qkv', 'o', 'gate_up', 'down', 'logits']));
});

test('the scheduler runs all requests in every step', () => {
  const figures = measureScheduler(50, 20, 10);
  expect(figures).toMatchObject({ num_requests: 50, num_steps: 10 });
  expect(figures.schedules_per_second).toBeGreaterThan(0);
});
