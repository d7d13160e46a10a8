import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { openDevice } from '../device/harness.ts';
import type { GoldenRunner } from '../models/golden-runner.ts';
import { goldenPrompts, quantizedGolden } from './quantized-golden.ts';

for (const scheme of ['int8', 'int4', 'fp8']) {
  describe.each(['llama', 'qwen2', 'qwen3', 'gemma3_text', 'mixtral', 'gpt_oss'])(`${scheme} %s`, (golden) => {
    const prompts = goldenPrompts(golden);
    let device: CpuDevice;
    let runner: GoldenRunner;
    beforeAll(async () => {
      device = openDevice();
      runner = await quantizedGolden(device, golden, scheme);
    });
    afterAll(() => device.close());

    beforeEach(() => runner.reset());

    const all = (each: GoldenRunner) =>
      prompts.map((ids) => each.step([{ sequence: each.addSequence(ids.length), ids }]));

    test('bit-identical alone, in chunks and in a batch', () => {
      const alone = all(runner);
      runner.reset();
      const chunked = prompts.map((ids) => {
        const sequence = runner.addSequence(ids.length);
        const rows: Float32Array[] = [];
        for (let i = 0; i < ids.length; i += 3) rows.push(...runner.step([{ sequence, ids: ids.slice(i, i + 3) }]));
        return rows;
      });
      runner.reset();
      const batch = runner.step(prompts.map((ids) => ({ sequence: runner.addSequence(ids.length), ids })));
      expect(chunked).toEqual(alone);
      expect(batch).toEqual(alone.flat());
    });
  });
}
