import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
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

async function createRunner(device: CpuDevice, golden: string, quantization: string): Promise<GoldenRunner> {
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

for (const scheme of ['int8', 'int4']) {
  describe.each(['llama', 'qwen2', 'qwen3', 'gemma3_text'])(`${scheme} %s`, (golden) => {
    const prompts: { ids: number[] }[] = readJson(golden, 'golden.json').prompts;
    let device: CpuDevice;
    let runner: GoldenRunner;
    beforeAll(async () => {
      device = openDevice();
      runner = await createRunner(device, golden, scheme);
    });
    afterAll(() => device.close());

    beforeEach(() => runner.reset());

    const all = (each: GoldenRunner) =>
      prompts.map(({ ids }) => each.step([{ sequence: each.addSequence(ids.length), ids }]));

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
    });
  });
}
