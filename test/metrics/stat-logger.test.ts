import { expect, test } from 'bun:test';
import type { SchedulerStats } from '../../src/engine/messages.ts';
import { StatLogger } from '../../src/metrics/stat-logger.ts';

const STATS: SchedulerStats = {
  numRunning: 2,
  numWaiting: 1,
  numDeferred: 0,
  sleepLevel: -1,
  kvCacheUsage: 0.1234,
  prefixCacheQueries: 200,
  prefixCacheHits: 50,
  numPreemptions: 0,
  numDrafts: 0,
  numDraftTokens: 0,
  numAcceptedTokens: 0,
  acceptedPerPosition: [],
  runningLoraAdapters: [],
  waitingLoraAdapters: [],
  numSteps: 0,
  numScheduledTokens: 0,
  stepMs: 0,
  hostMs: 0,
  estimatedFlops: 0,
  estimatedReadBytes: 0,
  estimatedWriteBytes: 0,
};

function start(numEngines = 1) {
  const clock = { ms: 5000 };
  const lines: string[] = [];
  const totals = Array.from({ length: numEngines }, () => ({ promptTokens: 0, generationTokens: 0 }));
  const statLogger = new StatLogger({
    numEngines,
    now: () => clock.ms,
    log: (line) => lines.push(line),
    tokenTotals: async () => structuredClone(totals),
  });
  const add = (engine: number, promptTokens: number, generationTokens: number) => {
    totals[engine]!.promptTokens += promptTokens;
    totals[engine]!.generationTokens += generationTokens;
  };
  const tickAfter = async (ms: number) => {
    clock.ms += ms;
    await statLogger.tick();
    return lines.splice(0);
  };
  return { statLogger, add, tickAfter };
}

test('the line of a window', async () => {
  const { statLogger, add, tickAfter } = start();
  add(0, 100, 1);
  add(0, 0, 24);
  statLogger.onStats(0, STATS);
  expect(await tickAfter(10_000)).toEqual([
    'Engine 000: Avg prompt throughput: 10.0 tokens/s, Avg generation throughput: 2.5 tokens/s, Running: 2 reqs, Waiting: 1 reqs, KV cache usage: 12.3%, Prefix cache hit rate: 25.0%',
  ]);
});

test('drafts of a window have a line of their own, as vLLM’s', async () => {
  const { statLogger, add, tickAfter } = start();
  const before = { numDrafts: 10, numDraftTokens: 28, numAcceptedTokens: 15, acceptedPerPosition: [9, 6, 0] };
  const after = { numDrafts: 30, numDraftTokens: 108, numAcceptedTokens: 45, acceptedPerPosition: [24, 16, 4, 1] };
  add(0, 10, 25);
  statLogger.onStats(0, { ...STATS, ...before });
  const [, first] = await tickAfter(10_000);
  expect(first).toBe(
    'Engine 000: SpecDecoding metrics: Mean acceptance length: 2.50, Accepted throughput: 1.50 tokens/s, Drafted throughput: 2.80 tokens/s, Accepted: 15 tokens, Drafted: 28 tokens, Per-position acceptance rate: 0.900, 0.600, 0.000, Avg Draft acceptance rate: 53.6%',
  );
  statLogger.onStats(0, { ...STATS, ...after });
  const [, second] = await tickAfter(10_000);
  expect(second).toContain('Mean acceptance length: 2.50, Accepted throughput: 3.00 tokens/s');
  expect(second).toContain('Per-position acceptance rate: 0.750, 0.500, 0.200, 0.050, ');
  expect(await tickAfter(10_000)).toHaveLength(1);
});

test('what steps are estimated to take has a line of its own, by the second', async () => {
  const { statLogger, add, tickAfter } = start();
  add(0, 100, 1);
  statLogger.onStats(0, { ...STATS, estimatedFlops: 4e12, estimatedReadBytes: 3e10, estimatedWriteBytes: 1e10 });
  const [, line] = await tickAfter(10_000);
  expect(line).toBe('Engine 000: MFU: 0.400 TF/s/device 4.0 GB/s/device');
  add(0, 0, 1);
  statLogger.onStats(0, { ...STATS, estimatedFlops: 5e12, estimatedReadBytes: 3.5e10, estimatedWriteBytes: 1e10 });
  expect(await tickAfter(1000)).toEqual([
    expect.stringContaining('Avg generation throughput: 1.0'),
    'Engine 000: MFU: 1.000 TF/s/device 5.0 GB/s/device',
  ]);
  expect(await tickAfter(1000)).toHaveLength(1);
});

test('silence while nothing happens, but one line after the last activity', async () => {
  const { add, tickAfter } = start();
  expect(await tickAfter(10_000)).toEqual([]);
  add(0, 5, 1);
  expect(await tickAfter(10_000)).toHaveLength(1);
  expect(await tickAfter(10_000)).toEqual([expect.stringContaining('Avg generation throughput: 0.0 tokens/s')]);
  expect(await tickAfter(10_000)).toEqual([]);
});

test('a request that runs without finishing a token is activity, as long as the core says so', async () => {
  const { statLogger, tickAfter } = start();
  for (let window = 0; window < 3; window++) {
    statLogger.onStats(0, STATS);
    expect(await tickAfter(10_000)).toHaveLength(1);
  }
  expect(await tickAfter(10_000)).toHaveLength(1);
  expect(await tickAfter(10_000)).toEqual([]);
});

test('engines are told apart, and idle ones keep silent', async () => {
  const { add, tickAfter } = start(12);
  add(11, 10, 10);
  expect(await tickAfter(1000)).toEqual([expect.stringMatching(/^Engine 011: Avg prompt throughput: 10\.0 /)]);
});

test('a window of no time is no division by zero', async () => {
  const { add, tickAfter } = start();
  add(0, 10, 10);
  expect(await tickAfter(0)).toEqual([expect.stringContaining('Avg prompt throughput: 0.0 tokens/s')]);
});
