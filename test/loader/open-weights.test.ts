import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { describe, expect, test } from 'bun:test';
import { resolve } from 'node:path';
import { dtypeBytes } from '../../src/device/dtype.ts';
import { openDummyWeights } from '../../src/loader/dummy.ts';
import { loadFormats, openWeights, registerLoadFormat } from '../../src/loader/open-weights.ts';
import type { TensorView } from '../../src/loader/weight-source.ts';

const DEMO = resolve(import.meta.dir, '../../models/demo');

function bytes(view: TensorView): Uint8Array {
  const count = view.shape.reduce((product, size) => product * size, 1);
  return new Uint8Array(toArrayBuffer(view.ptr as Pointer, 0, count * dtypeBytes(view.dtype)));
}

/** Every `stride`-th element as a number, the last one included. */
function values(view: TensorView, stride = 1): Float32Array {
  const memory = bytes(view);
  const count = memory.byteLength / dtypeBytes(view.dtype);
  const elements = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  return Float32Array.from({ length: Math.ceil(count / stride) }, (_, i) => {
    const index = count - 1 - i * stride;
    if (view.dtype === 'float32') return elements.getFloat32(index * 4, true);
    if (view.dtype === 'float16') return elements.getFloat16(index * 2, true);
    return new Float32Array(Uint32Array.of(elements.getUint16(index * 2, true) << 16).buffer)[0]!;
  });
}

function moments(sample: Float32Array): { mean: number; deviation: number } {
  let sum = 0;
  let squares = 0;
  for (const value of sample) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / sample.length;
  return { mean, deviation: Math.sqrt(squares / sample.length - mean * mean) };
}

describe('load formats', () => {
  test('auto and safetensors read the checkpoint', async () => {
    for (const loadFormat of ['auto', 'safetensors']) {
      const source = await openWeights(DEMO, { loadFormat });
      expect(source.has('model.norm.weight')).toBe(true);
      source.close();
    }
  });

  test('an unknown one is named with the known ones', async () => {
    await expect(openWeights(DEMO, { loadFormat: 'nope' })).rejects.toThrow(
      'Unknown load format "nope"; known are auto, dummy, safetensors',
    );
  });

  test('a plugin adds one, once', async () => {
    const source = openDummyWeights({ seed: 0, dtype: 'float32' });
    registerLoadFormat('of-a-test', async () => source);
    expect(loadFormats()).toContain('of-a-test');
    expect(await openWeights('anywhere', { loadFormat: 'of-a-test' })).toBe(source);
    expect(() => registerLoadFormat('of-a-test', () => source)).toThrow('registered already');
    expect(() => registerLoadFormat('dummy', () => source)).toThrow('registered already');
  });
});

describe('dummy weights', () => {
  test.each(['float32', 'bfloat16', 'float16'] as const)('%s: small normal values, around 1 for norms', (dtype) => {
    const source = openDummyWeights({ seed: 3, dtype });
    const weight = moments(values(source.get('model.layers.0.mlp.up_proj.weight', [300, 500])));
    expect(Math.abs(weight.mean)).toBeLessThan(0.001);
    expect(weight.deviation).toBeGreaterThan(0.018);
    expect(weight.deviation).toBeLessThan(0.022);
    const norm = moments(values(source.get('model.layers.0.input_layernorm.weight', [4096])));
    expect(Math.abs(norm.mean - 1)).toBeLessThan(0.01);
    source.close();
  });

  test('the same for the same seed and name, else different; small and mapped ones alike', () => {
    for (const shape of [
      [40, 50],
      [1024, 640],
    ]) {
      const make = (seed: number, name: string) => {
        const source = openDummyWeights({ seed, dtype: 'bfloat16' });
        const hash = Bun.hash(bytes(source.get(name, shape)));
        source.close();
        return hash;
      };
      expect(make(1, 'a.weight')).toBe(make(1, 'a.weight'));
      expect(make(1, 'a.weight')).not.toBe(make(1, 'b.weight'));
      expect(make(1, 'a.weight')).not.toBe(make(2, 'a.weight'));
    }
  });

  test('a tensor larger than the slab is there to its last element', () => {
    const source = openDummyWeights({ seed: 0, dtype: 'bfloat16' });
    const view = source.get('lm_head.weight', [5003, 4099]);
    const { mean, deviation } = moments(values(view, 97));
    expect(Math.abs(mean)).toBeLessThan(0.001);
    expect(deviation).toBeGreaterThan(0.018);
    expect(source.totalBytes).toBe(5003 * 4099 * 2);
    expect(source.get('lm_head.weight', [5003, 4099]).ptr).toBe(view.ptr);
    source.close();
  });

  test('asked for by name alone it needs to be known', () => {
    const source = openDummyWeights({ seed: 0, dtype: 'float32' });
    expect(() => source.get('a')).toThrow('"a" was asked for without a shape');
    const view = source.get('a', [2]);
    expect(source.get('a')).toBe(view);
    expect(source.names()).toEqual(['a']);
    source.close();
  });
});
