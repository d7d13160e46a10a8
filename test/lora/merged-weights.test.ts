import { afterAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import type { WeightSource } from '../../src/loader/weight-source.ts';
import { groupByAdapter, type LoRASlot, loraGroupWords, writeLoRAGroups } from '../../src/lora/lora-batch.ts';
import { LoRALayers } from '../../src/lora/lora-layers.ts';
import { LoRAManager } from '../../src/lora/lora-manager.ts';
import { loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { openDevice } from '../device/harness.ts';
import { withFolder } from '../loader/safetensors-file.ts';
import { GoldenRunner } from '../models/golden-runner.ts';
import { MemoryWeights } from '../models/memory-weights.ts';
import { readMatrix } from '../models/reference-values.ts';
import { adapterFiles, adapterTensors, type Tensors } from './adapter-files.ts';

const FOLDER = join(import.meta.dir, '../goldens');
const LIMITS = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: 256 };
const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % 60);
const SCALE = 2;

const device = openDevice(2);
afterAll(() => device.close());

function build(golden: string, weights: WeightSource, adapters: LoRALayers | null, quantization: string | null = null) {
  const file = join(FOLDER, golden, 'config.json');
  const config = parseHfConfig(JSON.parse(readFileSync(file, 'utf8')), file);
  const tensorParallel = { rank: 0, size: 1 };
  const options = { device, config, weights, dtype: 'float32', kvCacheDtype: 'float32', ...LIMITS } as const;
  return loadModel({ ...options, tensorParallel, adapters, quantization }).then(
    (model) => new GoldenRunner(device, model, { ...LIMITS, hiddenSize: config.hiddenSize, maxNumSeqs: 4 }),
  );
}

/** A checkpoint with what an adapter adds to its matrices. */
function merged(source: WeightSource, tensors: Tensors): WeightSource {
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
function setBatch(layers: LoRALayers, parts: readonly { lora: LoRASlot | null; numTokens: number }[]): void {
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
}

const largest = (rows: readonly Float32Array[]) => Math.max(...rows.flatMap((row) => [...row].map(Math.abs)));
const difference = (a: readonly Float32Array[], b: readonly Float32Array[]) =>
  Math.max(...a.flatMap((row, i) => [...row].map((value, j) => Math.abs(value - b[i]![j]!))));

async function withAdapters(
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
  const runner = await build(golden, source, layers, quantization);
  const base = await build(golden, source, null, quantization);
  const tensors = [1, 2].map((seed) => adapterTensors(layers.modules(), 4, seed));
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

/** Separate and stacked projections, several norms, biases, experts beside, latent attention. */
describe.each(['llama', 'phi3', 'qwen2', 'gemma3_text', 'qwen3_moe', 'deepseek_v3'])('%s', (golden) => {
  test('an adapter gives what merged weights give', () =>
    withAdapters(golden, null, async ({ source, runner, layers, tensors, slots }) => {
      setBatch(layers, [{ lora: slots[0]!, numTokens: PROMPT.length }]);
      const adapted = runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
      const reference = await build(golden, merged(source, tensors[0]!), null);
      const expected = reference.step([{ sequence: reference.addSequence(PROMPT.length), ids: PROMPT }]);
      expect(difference(adapted, expected) / largest(expected)).toBeLessThan(2e-4);
      setBatch(layers, [{ lora: null, numTokens: PROMPT.length }]);
      const plain = runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
      expect(difference(plain, expected) / largest(expected)).toBeGreaterThan(1e-2);
    }));

  test('base and adapters in one batch: each has the bits that it has alone', () =>
    withAdapters(golden, null, async ({ runner, base, layers, slots }) => {
      const order = [slots[1]!, null, slots[0]!, slots[1]!];
      const prompts = order.map((_, i) => PROMPT.slice(i));
      const alone = prompts.map((ids, i) => {
        setBatch(layers, [{ lora: order[i]!, numTokens: ids.length }]);
        return runner.step([{ sequence: runner.addSequence(ids.length), ids }]);
      });
      runner.reset();
      setBatch(
        layers,
        prompts.map((ids, i) => ({ lora: order[i]!, numTokens: ids.length })),
      );
      const together = runner.step(prompts.map((ids) => ({ sequence: runner.addSequence(ids.length), ids })));
      expect(together).toEqual(alone.flat());
      expect(alone[1]).toEqual(base.step([{ sequence: base.addSequence(39), ids: prompts[1]! }]));
      expect(alone[3]!.at(-1)).not.toEqual(alone[2]!.at(-1));
    }));
});

test('quantized weights: what the base gives plus the adapter, the base alone unchanged', () =>
  withAdapters('llama', 'int8', async ({ runner, base, layers, slots, source, tensors }) => {
    const step = (lora: LoRASlot | null) => {
      setBatch(layers, [{ lora, numTokens: PROMPT.length }]);
      return runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
    };
    const plain = step(null);
    expect(plain).toEqual(base.step([{ sequence: base.addSequence(PROMPT.length), ids: PROMPT }]));
    const reference = await build('llama', merged(source, tensors[0]!), null);
    const expected = reference.step([{ sequence: reference.addSequence(PROMPT.length), ids: PROMPT }]);
    const error = difference(step(slots[0]!), expected);
    // int8 is coarse, but far nearer to the merged weights than the base is.
    expect(error).toBeLessThan(difference(plain, expected) / 4);
  }));
