import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import type { WeightSource } from '../../src/loader/weight-source.ts';
import { loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { GoldenRunner } from '../models/golden-runner.ts';

const FOLDER = join(import.meta.dir, '../goldens');
const LIMITS = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: 256 };

const readJson = (golden: string, file: string) => JSON.parse(readFileSync(join(FOLDER, golden, file), 'utf8'));

/** Token ids of a golden's prompts. */
export function goldenPrompts(golden: string): number[][] {
  return readJson(golden, 'golden.json').prompts.map(({ ids }: { ids: number[] }) => ids);
}

/** A model of a golden's kind in float32 but for what its quantization makes of its linear layers. */
export async function loadGolden(
  device: CpuDevice,
  golden: string,
  { config: raw, weights, quantization }: { config: unknown; weights: WeightSource; quantization: string | null },
): Promise<GoldenRunner> {
  const config = parseHfConfig(raw, golden);
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
}

/** A golden's model in float32 but for what a method of `--quantization` makes of its linear layers. */
export async function quantizedGolden(
  device: CpuDevice,
  golden: string,
  quantization: string | null,
): Promise<GoldenRunner> {
  const weights = openSafetensors(join(FOLDER, golden));
  try {
    return await loadGolden(device, golden, { config: readJson(golden, 'config.json'), weights, quantization });
  } finally {
    weights.close();
  }
}
