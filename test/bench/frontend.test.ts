import { expect, test } from 'bun:test';
import { measureFrontend } from '../../bench/commands/frontend.ts';
import { ConfigError } from '../../src/config/config-error.ts';

const LOAD = { model: 'demo', concurrency: 3, outputLen: 5, tokensAtOnce: 1, apiServerCount: 1, rounds: 2 };

test('every stream has its chunks: one for the role, one for each token, and the end', async () => {
  const figures = await measureFrontend(LOAD);
  expect(figures).toMatchObject({
    concurrency: 3,
    output_len: 5,
    tokens_at_once: 1,
    requests: 6,
    chunks: 6 * (1 + 5 + 1),
  });
  expect(figures.server_cpu_seconds).toBeGreaterThan(0);
  expect(figures.chunks_per_core_second).toBeCloseTo(figures.chunks / figures.server_cpu_seconds, 3);
});

test('several API servers answer at one port, each with its own line to the core', async () => {
  const figures = await measureFrontend({ ...LOAD, concurrency: 12, apiServerCount: 2, tokensAtOnce: 2 });
  expect(figures).toMatchObject({ api_server_count: 2, requests: 24, chunks: 24 * (1 + 5 + 1) });
});

test('a model without a tokenizer is told, not a stack', async () => {
  const refused = measureFrontend({ ...LOAD, model: 'bench/shapes/0.5b' });
  await expect(refused).rejects.toThrow(ConfigError);
  await expect(refused).rejects.toThrow(/there is no tokenizer.json/);
});
