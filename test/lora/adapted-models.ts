import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Device } from '../../src/device/device.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import type { WeightSource } from '../../src/loader/weight-source.ts';
import { groupByAdapter, type LoRASlot, loraGroupWords, writeLoRAGroups } from '../../src/lora/lora-batch.ts';
import { LoRALayers } from '../../src/lora/lora-layers.ts';
import { LoRAManager } from '../../src/lora/lora-manager.ts';
import { loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { withFolder } from '../loader/safetensors-file.ts';
import { GoldenRunner } from '../models/golden-runner.ts';
import { MemoryWeights } from '../models/memory-weights.ts';
import { readMatrix } from '../models/reference-values.ts';
import { adapterFiles, adapterTensors, type Tensors } from './adapter-files.ts';

const FOLDER = join(import.meta.dir, '../goldens');
const LIMITS = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: 256 };
export const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % 60);
const SCALE = 2;

export function build(
  device: Device,
  golden: string,
  weights: WeightSource,
  adapters: LoRALayers | null,
  quantization: string | null = null,
) {
  const file = join(FOLDER, golden, 'config.json');
  const config = parseHfConfig(JSON.parse(readFileSync(file, 'utf8')), file);
  const tensorParallel = { rank: 0, size: 1 };
  const options = { device, config, weights, dtype: 'float32', kvCacheDtype: 'float32', ...LIMITS } as const;
  return loadModel({ ...options, tensorParallel, adapters, quantization }).then(
    (model) => new GoldenRunner(device, model, { ...LIMITS, hiddenSize: config.hiddenSize, maxNumSeqs: 4 }),
  );
}

/** A checkpoint with what an adapter adds to its matrices. */
export function merged(source: WeightSource, tensors: Tensors): WeightSource {
  const weights = new MemoryWeights();
  for (const name of source.names()) {
    const { ptr, dtype, shape } = source.get(name);
    const [rows, cols] = [shape.length === 2 ? shape[0]! : 1, shape.at(-1)!];
    const count = shape.reduce((product, size) => product * size, 1);
    const values = readMatrix({ ptr, dtype, rows: count / cols, cols, ld: cols });
    const prefix = `base_model.model.${name.replace(/\.weight$/, '')}`;
    const [a, b] = [tensors[`${prefix}.lora_A.weight`], tensors[`${prefix}.lora_B.weight`]];
    if (a !== undefined && b !== undefined) addProduct(values, rows, cols, a.values, b.values);
    weights.set(name, shape, values);
  }
  return weights;
}

function addProduct(w: Float32Array, rows: number, cols: number, a: number[], b: number[]): void {
  const rank = a.length / cols;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += b[row * rank + r]! * a[r * cols + col]!;
      w[row * cols + col]! += SCALE * sum;
    }
  }
}

/** Tells the layers which of a step's parts have an adapter. */
export function setBatch(
  device: Device,
  layers: LoRALayers,
  parts: readonly { lora: LoRASlot | null; numTokens: number }[],
): void {
  let firstToken = 0;
  const spans = parts.map(({ lora, numTokens }) => {
    const span = { lora, firstToken, numTokens };
    firstToken += numTokens;
    return span;
  });
  const groups = groupByAdapter(spans);
  if (groups === null) {
    layers.setBatch(null);
    return;
  }
  const staged = device.staging(loraGroupWords(groups) * 4, 'test');
  layers.setBatch(writeLoRAGroups(groups, new Int32Array(staged.host), 0, staged.ptr));
  staged.upload();
}

export const largest = (rows: readonly Float32Array[]) => Math.max(...rows.flatMap((row) => [...row].map(Math.abs)));
export const difference = (a: readonly Float32Array[], b: readonly Float32Array[]) =>
  Math.max(...a.flatMap((row, i) => [...row].map((value, j) => Math.abs(value - b[i]![j]!))));

export async function withAdapters(
  device: Device,
  golden: string,
  quantization: string | null,
  run: (models: {
    source: WeightSource;
    runner: GoldenRunner;
    base: GoldenRunner;
    layers: LoRALayers;
    tensors: Tensors[];
    slots: LoRASlot[];
  }) => Promise<void>,
): Promise<void> {
  const source = openSafetensors(join(FOLDER, golden));
  const layers = new LoRALayers(device, { numSlots: 2, dtype: 'float32' });
  const runner = await build(device, golden, source, layers, quantization);
  const base = await build(device, golden, source, null, quantization);
  const tensors = [1, 2].map((seed) => adapterTensors(layers.modules().linear, 4, seed));
  const manager = new LoRAManager(layers, 16);
  const slots: LoRASlot[] = [];
  for (const [i, each] of tensors.entries()) {
    await withFolder(adapterFiles(each), (path) => {
      slots.push(manager.acquire({ id: i + 1, name: String(i), path }));
    });
  }
  await run({ source, runner, base, layers, tensors, slots });
  source.close();
}
