/** Products with weights of 8 and 4 bits have the CPU's bits, whichever kernel takes them. */
import { afterAll, describe, expect, test } from 'bun:test';
import type { Device } from '../../../src/device/device.ts';
import { QUANTIZATION_CODES } from '../../../src/device/quantization-scheme.ts';
import { randomFloats } from '../harness.ts';
import { CUDA_DEVICE, openDeviceUnderTest, openReference } from './device-under-test.ts';
import { type OpCase, runCase } from './op-runner.ts';
import { quantizedExpertCases } from './quant-cases.ts';

const cpu = openReference(2);
afterAll(() => cpu.close());

/** So many output features that there is a large tile for each multiprocessor, of which the emulation has four. */
const MANY_FEATURES = CUDA_DEVICE === 'cuda' ? 80 * 128 + 3 : 131;
const INTEGERS = ['int8', 'int4'] as const;
type Scheme = (typeof INTEGERS)[number];

/** x times a weight, with biases, as float32. */
function productCase(scheme: Scheme, x: Float32Array, w: Float32Array, [m, n, k]: readonly number[]): OpCase {
  const args = { x: 'x', ld_x: k!, w: 'w', scheme: QUANTIZATION_CODES[scheme], bias: 'bias', out: 'out', ld_out: n! };
  return {
    name: `${scheme} [${m}, ${n}, ${k}]`,
    buffers: {
      x: { type: 'act', values: x.subarray(0, m! * k!) },
      w: { type: 'quantized', n: n!, k: k!, values: w, scheme },
      bias: { type: 'f32', values: randomFloats(n!, 3) },
      out: { type: 'f32', values: new Float32Array(m! * n!) },
    },
    steps: [{ op: 'quantized_linear_f32', args: { ...args, m: m!, n: n!, k: k! } }],
    outputs: ['out'],
  };
}

/** Random rows, one of zeros and one with a number that is not finite. */
function randomRows(m: number, k: number): Float32Array {
  const x = randomFloats(m * k, 1).map((value) => 3 * value);
  x.fill(0, k, 2 * k);
  x[3 * k + 5] = Number.POSITIVE_INFINITY;
  return x;
}

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
/** Any NaN is as good as another. */
const canonical = (values: Float32Array) => bits(values.map((value) => (Number.isNaN(value) ? Number.NaN : value)));

for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
  describe(`${CUDA_DEVICE}, ${dtype}`, async () => {
    const cuda = await openDeviceUnderTest({ activationDtype: dtype, checked: dtype === 'bfloat16' });
    afterAll(() => cuda.close());

    // One or two rows by lanes, then small, middle and large tiles; k ends within a group, and within a word.
    test.each(INTEGERS)('a row has the same bits alone and in every batch: %s', (scheme) => {
      const [rows, n, k] = [200, MANY_FEATURES, 437];
      const [x, w] = [randomRows(rows, k), randomFloats(n * k, 2)];
      w.fill(0, 4 * k, 5 * k);
      w[7 * k + 300] = Number.NaN;
      const multiply = (device: Device, m: number) =>
        canonical(runCase(device, productCase(scheme, x, w, [m, n, k]), dtype)[0]!);
      const expected = multiply(cpu, rows);
      for (const m of [1, 4, 5, 16, 17, 65, rows]) expect(multiply(cuda, m)).toEqual(expected.slice(0, m * n));
    });

    // Whole groups and words; more than one round of a lane's loads, and stages of a tile more than once.
    test.each(INTEGERS)('long rows: %s', (scheme) => {
      for (const [m, n, k] of [
        [3, 5, 4096],
        [9, 17, 1024],
        [33, 9, 1152],
      ] as const) {
        const each = productCase(scheme, randomFloats(m * k, 4), randomFloats(n * k, 5), [m, n, k]);
        expect(canonical(runCase(cuda, each, dtype)[0]!)).toEqual(canonical(runCase(cpu, each, dtype)[0]!));
      }
    });
  });
}

describe(`${CUDA_DEVICE}, mixtures`, async () => {
  const cuda = await openDeviceUnderTest({ activationDtype: 'float32', checked: true });
  afterAll(() => cuda.close());

  // By lanes, then small, middle and large tiles.
  const shapes = [
    [[1, 0, 2, 0], 33, 200],
    [[9, 0, 20, 1], 33, 200],
    [[70, 3], 70, 437],
    [[300, 0, 130], MANY_FEATURES, 140],
  ] as const;
  test.each(quantizedExpertCases(shapes).filter(({ name }) => !name.includes('fp8')))('$name', (each) => {
    expect(canonical(runCase(cuda, each, 'float32')[0]!)).toEqual(canonical(runCase(cpu, each, 'float32')[0]!));
  });
});

test('a number is rounded twice where the CPU rounds it twice', async () => {
  const cuda = await openDeviceUnderTest({ activationDtype: 'float32', checked: false });
  // The scale is 1. With its zero point of 128 the second number lies on a tie, and the even number below it is taken; without it is nearer to 3.
  const k = 8;
  const w = Float32Array.of(127, 2.5 + 2 ** -20, 0, 0, 0, 0, 0, 0);
  const x = Float32Array.of(0, 127, 0, 0, 0, 0, 0, 0);
  const each = productCase('int8', x, w, [1, 1, k]);
  const [bias] = randomFloats(1, 3);
  for (const device of [cpu, cuda]) expect(runCase(device, each, 'float32')).toEqual([Float32Array.of(254 + bias!)]);
  cuda.close();
});
