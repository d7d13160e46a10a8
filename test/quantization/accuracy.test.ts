import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { afterAll, beforeAll, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { type LinearMethod, loadBias, shardMatrix, UnquantizedLinear } from '../../src/layers/linear-method.ts';
import { registerQuantization } from '../../src/quantization/registry.ts';
import { floats, openDevice } from '../device/harness.ts';
import { unpackedWeights } from '../device/quant-reference.ts';
import { goldenPrompts, quantizedGolden } from './quantized-golden.ts';

let device: CpuDevice;
beforeAll(() => {
  device = openDevice();
});
afterAll(() => device.close());

/** The quantized weights as float32, multiplied with activations as they are: the scheme without the error of activations. */
function weightsOnly(scheme: 'int8' | 'int4'): LinearMethod {
  return {
    name: `weights-only-${scheme}`,
    load(_, weights, _dtype, spec) {
      const sources = spec.shards.map((shard) => shardMatrix(weights, shard));
      const own = spec.isLMHead ? 'int8' : scheme;
      const { ptr, n, k, bytes } = device.packQuantizedLinear(sources, own, spec.purpose);
      const words = new Uint32Array(toArrayBuffer(ptr as Pointer, 0, bytes));
      const matrix = floats(device, unpackedWeights(words, n, k, own));
      const source = { ptr: matrix.ptr, dtype: 'float32' as const, rows: n, cols: k, ld: k };
      return new UnquantizedLinear(
        device,
        device.packLinear([source], 'float32', spec.purpose),
        spec.bias ? loadBias(device, weights, spec) : 0,
      );
    },
  };
}
registerQuantization('weights-only-int8', weightsOnly('int8'));
registerQuantization('weights-only-int4', weightsOnly('int4'));

/** Log probabilities of the whole vocabulary after each token of each prompt. */
async function logprobs(golden: string, quantization: string | null): Promise<Float64Array> {
  const runner = await quantizedGolden(device, golden, quantization);
  const rows = goldenPrompts(golden).flatMap((ids) =>
    runner.step([{ sequence: runner.addSequence(ids.length), ids }]).map(logSoftmax),
  );
  return Float64Array.from(rows.flatMap((row) => [...row]));
}

function logSoftmax(logits: Float32Array): Float64Array {
  const max = logits.reduce((best, value) => Math.max(best, value));
  const logTotal = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return Float64Array.from(logits, (value) => value - max - logTotal);
}

function rms(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

/** Root mean square of a - b as a share of b's own spread. */
function change(a: Float64Array, b: Float64Array): number {
  const mean = b.reduce((sum, value) => sum + value, 0) / b.length;
  return rms(a.map((value, i) => value - b[i]!)) / rms(b.map((value) => value - mean));
}

/**
 * 8 bits put an error of about 0.6 % on each number of a group (a step of 2.6 / 127 standard deviations, over the root of 12). With
 * weights that are random, it grows to 2 to 5 % of the log probabilities' spread; a wrong scale or zero point gives tens.
 */
const EIGHT_BITS = 0.08;

/**
 * An 8-bit float is off by at most 2^-4 of itself, 1.8 % in the root mean square: between a half and a power of two the step is 2^-3 of the
 * lower end, over the root of 12. With random weights that grows as that of 8 bits does, from three times as much.
 */
const FP8 = 0.25;

test.each(['llama', 'qwen2', 'qwen3', 'gemma3_text', 'mixtral'])('%s: fp8 costs what its steps do', async (golden) => {
  const plain = await logprobs(golden, null);
  const fp8 = change(await logprobs(golden, 'fp8'), plain);
  expect(fp8).toBeLessThan(FP8);
  // Less than half of what four bits cost, where they cost much.
  expect(fp8).toBeLessThan(change(await logprobs(golden, 'int4'), plain));
  expect(fp8).toBeGreaterThan(change(await logprobs(golden, 'int8'), plain) / 2);
});

test.each(['llama', 'qwen2', 'qwen3', 'gemma3_text'])(
  '%s: integer arithmetic adds no more than 8 bits cost',
  async (golden) => {
    const plain = await logprobs(golden, null);
    for (const scheme of ['int8', 'int4']) {
      const ofWeights = await logprobs(golden, `weights-only-${scheme}`);
      const whole = await logprobs(golden, scheme);
      expect(change(whole, ofWeights)).toBeLessThan(EIGHT_BITS);
      expect(change(whole, ofWeights)).toBeGreaterThan(0);
      if (scheme === 'int8') expect(change(ofWeights, plain)).toBeLessThan(EIGHT_BITS);
    }
  },
);
