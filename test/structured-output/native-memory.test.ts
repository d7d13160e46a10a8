import { afterAll, beforeAll, expect, test } from 'bun:test';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { RequestOutput } from '../../src/engine/engine-client.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import { GuidanceBackend } from '../../src/structured-output/guidance-backend.ts';

/** Native objects of a whole engine, whose Workers share this process and its library. */
let engine: OfflineEngine;
let backend: GuidanceBackend;
beforeAll(async () => {
  engine = await OfflineEngine.start(new EngineArgs({ model: 'demo', logLevel: 'error', maxModelLen: 512 }));
  backend = new GuidanceBackend(engine.config);
  await backend.registerVocabulary(engine.client.tokenizer!);
});
afterAll(() => engine.close());

const constrained = (text: string): SamplingParams => ({
  ...DEFAULT_SAMPLING_PARAMS,
  maxTokens: 400,
  structuredOutputs: { kind: 'regex', text, startsAfter: null },
});
const promptTokenIds = Int32Array.of(300, 301, 302);

/** Each passes only when nothing is left; the test's timeout tells of a leak. */
async function untilFreed(): Promise<void> {
  while (backend.numLive > 0) await Bun.sleep(1);
}

test('finished requests leave nothing', async () => {
  const params = constrained('[a-z]{3}');
  const outputs = await engine.generate([1, 2, 3].map(() => ({ promptTokenIds, params })));
  for (const {
    outputs: [first],
  } of outputs)
    expect(first!.text).toMatch(/^[a-z]{3}$/);
  await untilFreed();
});

test('requests that are aborted while they run leave nothing', async () => {
  const seen = Promise.withResolvers<RequestOutput>();
  engine.client.addRequest(
    { requestId: 'running', promptTokenIds, params: { ...constrained('[a-z]+'), ignoreEos: true } },
    { onOutput: seen.resolve, onError: seen.reject },
  );
  await seen.promise;
  expect(backend.numLive).toBeGreaterThan(0);
  engine.client.abort('running');
  await untilFreed();
});

test('requests that are aborted while their grammar is compiled leave nothing', async () => {
  // Thousands of alternatives: not done before the abort arrives.
  const text = Array.from({ length: 30_000 }, (_, i) => `x${(i * 7919) % 99_991}`).join('|');
  const never = () => {};
  engine.client.addRequest(
    { requestId: 'compiling', promptTokenIds, params: constrained(text) },
    { onOutput: never, onError: never },
  );
  while (backend.numLive === 0) await Bun.sleep(1);
  engine.client.abort('compiling');
  await untilFreed();
});
