import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../../src/device/device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import { loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { GoldenRunner } from './golden-runner.ts';

/** See test/goldens/README.md. */
interface Golden {
  bf16_error: { mean: number; max: number };
  prompts: {
    ids: number[];
    logprobs: (number | null)[];
    top: [id: number, logprob: number][][];
    logits: number[];
    greedy: [id: number, margin: number][];
  }[];
}

const FOLDER = join(import.meta.dir, '../goldens');
const MAX_MODEL_LEN = 256;
const CHUNK = 7;
/** Bounds of float32 runs; the recorded values have five decimals. */
const FLOAT32_ERROR = { mean: 1e-4, max: 1e-3 };

const readJson = (golden: string, file: string) => JSON.parse(readFileSync(join(FOLDER, golden, file), 'utf8'));

async function createRunner(device: Device, golden: string, dtype: FloatDType): Promise<GoldenRunner> {
  const config = parseHfConfig(readJson(golden, 'config.json'), `${golden}/config.json`);
  const weights = openSafetensors(join(FOLDER, golden));
  const limits = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: MAX_MODEL_LEN };
  try {
    const model = await loadModel({
      device,
      config,
      weights,
      dtype,
      kvCacheDtype: dtype,
      ...limits,
      tensorParallel: { rank: 0, size: 1 },
    });
    return new GoldenRunner(device, model, { ...limits, hiddenSize: config.hiddenSize, maxNumSeqs: 3 });
  } finally {
    weights.close();
  }
}

function logSoftmax(logits: Float32Array): Float64Array {
  const max = logits.reduce((best, value) => Math.max(best, value));
  const logTotal = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return Float64Array.from(logits, (value) => value - max - logTotal);
}

const argmax = (logits: Float32Array) => logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0);

const maxDifference = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0);

/** Declares the tests of one golden on one device and dtype. */
export function testGolden(
  golden: string,
  openDevice: () => Device | Promise<Device>,
  dtype: FloatDType,
  { batchInvariant = true } = {},
): void {
  const { prompts, bf16_error }: Golden = readJson(golden, 'golden.json');
  const bound = dtype === 'float32' ? FLOAT32_ERROR : bf16_error;

  const withRunner = async (run: (runner: GoldenRunner) => void) => {
    const device = await openDevice();
    try {
      run(await createRunner(device, golden, dtype));
    } finally {
      device.close();
    }
  };

  test(`${golden} ${dtype}: log probabilities, best ids and logits`, () =>
    withRunner((runner) => {
      const errors: number[] = [];
      for (const { ids, logprobs, top, logits } of prompts) {
        const rows = runner.step([{ sequence: runner.addSequence(ids.length), ids }]);
        rows.forEach((row, j) => {
          const actual = logSoftmax(row);
          if (j + 1 < ids.length) errors.push(Math.abs(actual[ids[j + 1]!]! - logprobs[j + 1]!));
          for (const [id, logprob] of top[j]!) expect(Math.abs(actual[id]! - logprob)).toBeLessThan(2 * bound.max);
        });
        expect(maxDifference(rows.at(-1)!, logits)).toBeLessThan(2 * bound.max);
      }
      const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
      expect(mean).toBeLessThanOrEqual(bound.mean);
    }));

  test(`${golden} ${dtype}: greedy tokens wherever the margin exceeds the error`, () =>
    withRunner((runner) => {
      for (const { ids, greedy } of prompts) {
        const sequence = runner.addSequence(ids.length);
        let next: readonly number[] = ids;
        for (const [id, margin] of greedy) {
          const logits = runner.step([{ sequence, ids: next }]).at(-1)!;
          if (margin > bound.max) expect(argmax(logits)).toBe(id);
          next = [id];
        }
      }
    }));

  test.skipIf(!batchInvariant)(`${golden} ${dtype}: bit-identical alone, in chunks and in a batch`, () =>
    withRunner((runner) => {
      const alone = prompts.map(({ ids }) => runner.step([{ sequence: runner.addSequence(ids.length), ids }]));
      runner.reset();
      const chunked = prompts.map(({ ids }) => {
        const sequence = runner.addSequence(ids.length);
        const rows: Float32Array[] = [];
        for (let i = 0; i < ids.length; i += CHUNK) {
          rows.push(...runner.step([{ sequence, ids: ids.slice(i, i + CHUNK) }]));
        }
        return rows;
      });
      runner.reset();
      const batch = runner.step(prompts.map(({ ids }) => ({ sequence: runner.addSequence(ids.length), ids })));
      expect(chunked).toEqual(alone);
      expect(batch).toEqual(alone.flat());
    }),
  );
}

/** Folders under test/goldens whose family has a model. */
export const GOLDENS = [
  'llama',
  'llama3',
  'yarn',
  'mistral',
  'qwen2',
  'qwen3',
  'granite',
  'phi3',
  'phi3_longrope',
  'smollm3',
  'gemma',
  'gemma2',
  'gemma3_text',
  'olmo2',
  'mixtral',
  'qwen3_moe',
  'gpt_oss',
  'deepseek_v3',
] as const;
