import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import { loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { openDevice } from '../device/harness.ts';
import { GoldenRunner } from '../models/golden-runner.ts';

const FOLDER = join(import.meta.dir, '../goldens');
const LIMITS = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: 256 };

const readJson = (golden: string, file: string) => JSON.parse(readFileSync(join(FOLDER, golden, file), 'utf8'));

async function createRunner(device: CpuDevice, golden: string, quantization: string | null): Promise<GoldenRunner> {
  const config = parseHfConfig(readJson(golden, 'config.json'), golden);
  const weights = openSafetensors(join(FOLDER, golden));
  try {
    const model = await loadModel({
      device,
      config,
      weights,
      dtype: 'float32',
      kvCacheDtype: 'float32',
      quantization,
      ...LIMITS,
      tensorParallel: { rank: 0, size: 1 },
    });
    return new GoldenRunner(device, model, { ...LIMITS, hiddenSize: config.hiddenSize, maxNumSeqs: 3 });
  } finally {
    weights.close();
  }
}

function logSoftmax(logits: Float32Array): Float64Array {
  const max = logits.reduce((best, value) => Math.max(best, value));
  const logTotal = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return Float64Array.from(logits, (value) => value - max - logTotal);
}

/** Root mean square of the differences of log probabilities, beside that of the log probabilities around their mean. */
function relativeError(rows: Float32Array[], reference: Float32Array[]): number {
  let error = 0;
  let spread = 0;
  for (const [i, row] of rows.entries()) {
    const [actual, expected] = [logSoftmax(row), logSoftmax(reference[i]!)];
    const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
    actual.forEach((value, j) => {
      error += (value - expected[j]!) ** 2;
      spread += (expected[j]! - mean) ** 2;
    });
  }
  return Math.sqrt(error / spread);
}

/**
 * A step of 1 / 127 of a group's range gives a product a relative error of about 0.5 %, on both sides 0.7 %; one of 1 / 15 gives 8 %.
 * Errors of the layers add up as independent ones do; these models have four or fewer, of random weights, which forgive nothing.
 */
const BOUNDS = { int8: 0.03, int4: 0.35 };

for (const [scheme, bound] of Object.entries(BOUNDS)) {
  describe.each(['llama', 'qwen2', 'qwen3', 'gemma3_text'])(`${scheme} %s`, (golden) => {
    const prompts: { ids: number[] }[] = readJson(golden, 'golden.json').prompts;
    let device: CpuDevice;
    let runner: GoldenRunner;
    beforeAll(async () => {
      device = openDevice();
      runner = await createRunner(device, golden, scheme);
    });
    afterAll(() => device.close());

    const all = (each: GoldenRunner) =>
      prompts.map(({ ids }) => each.step([{ sequence: each.addSequence(ids.length), ids }]));

    test('log probabilities stay near the unquantized ones', async () => {
      const reference = all(await createRunner(device, golden, null)).flat();
      const error = relativeError(all(runner).flat(), reference);
      console.log(golden, scheme, error);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(bound);
      runner.reset();
    });

    test('bit-identical alone, in chunks and in a batch', () => {
      const alone = all(runner);
      runner.reset();
      const chunked = prompts.map(({ ids }) => {
        const sequence = runner.addSequence(ids.length);
        const rows: Float32Array[] = [];
        for (let i = 0; i < ids.length; i += 3) rows.push(...runner.step([{ sequence, ids: ids.slice(i, i + 3) }]));
        return rows;
      });
      runner.reset();
      const batch = runner.step(prompts.map(({ ids }) => ({ sequence: runner.addSequence(ids.length), ids })));
      expect(chunked).toEqual(alone);
      expect(batch).toEqual(alone.flat());
      runner.reset();
    });
  });
}
