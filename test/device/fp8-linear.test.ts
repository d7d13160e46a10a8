import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import type { QuantizableSource, QuantizedLinear } from '../../src/device/device.ts';
import { DTYPE_CODES, type FloatDType } from '../../src/device/dtype.ts';
import { FP8_GROUP, QUANTIZATION_CODES } from '../../src/device/quantization-scheme.ts';
import { fp8ToFloat, unpackedFp8Weights } from './fp8-reference.ts';
import {
  availableIsas,
  FLOAT_DTYPES,
  finish,
  floats,
  ints,
  maxError,
  multipliesHalves,
  multipliesMatrices,
  openDevice,
  randomFloats,
  rounded,
  stored,
} from './harness.ts';
import { product } from './quant-reference.ts';

const ISAS = availableIsas();
const devices = new Map(ISAS.map((isa) => [isa, openDevice(2, isa)]));
afterAll(() => {
  for (const device of devices.values()) device.close();
});

function floatSource(device: CpuDevice, values: Float32Array, n: number, k: number): QuantizableSource {
  return { ptr: floats(device, values).ptr, dtype: 'float32', rows: n, cols: k, ld: k };
}

function pack(device: CpuDevice, values: Float32Array, n: number, k: number): QuantizedLinear {
  return device.packQuantizedLinear([floatSource(device, values, n, k)], 'fp8', 'weight');
}

function multiply(device: CpuDevice, x: Float32Array, w: QuantizedLinear, bias: Float32Array | null, m: number) {
  const out = floats(device, new Float32Array(m * w.n).fill(Number.NaN));
  const biasPtr = bias ? floats(device, bias).ptr : 0;
  const { fp8 } = QUANTIZATION_CODES;
  device.ops.quantized_linear(floats(device, x).ptr, w.k, w.ptr, fp8, biasPtr, out.ptr, w.n, m, w.n, w.k);
  finish(device);
  return out.f32.slice();
}

const bytesOf = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
const weightBytes = (w: QuantizedLinear) => new Uint8Array(toArrayBuffer(w.ptr as Pointer, 0, w.bytes)).slice();
const weightsOf = (w: QuantizedLinear) => unpackedFp8Weights(weightBytes(w), w.n, w.k);

/** Bytes as they lie in a checkpoint. */
function fp8Source(device: CpuDevice, bytes: Uint8Array, n: number, k: number, ld: number, scales: Float32Array) {
  const staging = device.staging(bytes.length, 'test');
  new Uint8Array(staging.host).set(bytes);
  return { ptr: staging.ptr, dtype: 'fp8_e4m3' as const, rows: n, cols: k, ld, scales };
}

/**
 * Sums of a group of 128 as halves, and sums of x as bfloat16, have an error of 0.002 of their own spread, which is a third of k's root for numbers
 * below 1; this is ten times that.
 */
function tolerance(device: CpuDevice, k: number): number {
  return multipliesHalves(device.isa) ? 7e-3 * Math.sqrt(k) : 1e-6 * k + 1e-6;
}

const SHAPES: [n: number, k: number][] = [
  [1, 1],
  [33, 7],
  [31, 128],
  [96, 130],
  [70, 1031],
];

for (const [isa, device] of devices) {
  describe(`quantized_linear of fp8, ${isa}`, () => {
    test('is the product with the weights that are kept, for every row count and odd shapes', () => {
      for (const [n, k] of SHAPES) {
        const packed = pack(device, randomFloats(n * k, n + k), n, k);
        const w = weightsOf(packed);
        const bias = randomFloats(n, 3);
        for (const m of [1, 2, 3, 4, 5, 13, 33, 49]) {
          const x = randomFloats(m * k, m);
          const expected = product(x, w, bias, [m, n, k]);
          expect(maxError(multiply(device, x, packed, bias, m), expected)).toBeLessThan(tolerance(device, k));
        }
      }
    });

    test.skipIf(multipliesHalves(isa))(
      'has the bits of linear with these weights as float32, whichever numbers they are',
      () => {
        const [n, k] = [67, 777];
        const bytes = Uint8Array.from({ length: n * k }, (_, i) => (((i * 7) & 0x7f) === 0x7f ? 0x01 : (i * 7) & 0xff));
        const scales = randomFloats(n * Math.ceil(k / FP8_GROUP), 1);
        const packed = device.packQuantizedLinear([fp8Source(device, bytes, n, k, k, scales)], 'fp8', 'weight');
        const source = floats(device, weightsOf(packed));
        const dense = device.packLinear(
          [{ ptr: source.ptr, dtype: 'float32', rows: n, cols: k, ld: k }],
          'float32',
          'weight',
        );
        for (const m of [1, 2, 3, 4, 5, 8, 12, 30]) {
          const x = randomFloats(m * k, 2);
          const out = floats(device, new Float32Array(m * n));
          device.ops.linear(floats(device, x).ptr, k, dense.ptr, DTYPE_CODES.float32, 0, out.ptr, n, m, n, k);
          finish(device);
          expect(bytesOf(multiply(device, x, packed, null, m)).equals(bytesOf(out.f32.subarray(0, m * n)))).toBe(true);
        }
      },
    );

    test('keeps weights within half a step of the source, zero exact, and the greatest of a group', () => {
      const [n, k] = [35, 203];
      const w = randomFloats(n * k, 8).map((v, i) => (i % 5 === 0 ? 0 : v));
      const kept = weightsOf(pack(device, w, n, k));
      for (let row = 0; row < n; row++) {
        for (let k0 = 0; k0 < k; k0 += FP8_GROUP) {
          const group = w.subarray(row * k + k0, row * k + Math.min(k, k0 + FP8_GROUP));
          const greatest = group.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          group.forEach((v, i) => {
            // Three bits of mantissa, and multiples of 2^-9 below 2^-6, of 448.
            const bound = Math.max(Math.abs(v) * 2 ** -4, (greatest / 448) * 2 ** -10) * 1.0001;
            const actual = kept[row * k + k0 + i]!;
            expect(Math.abs(actual - v)).toBeLessThanOrEqual(bound);
            if (Math.abs(v) === greatest) expect(Math.abs(actual - v)).toBeLessThanOrEqual(greatest * 1e-6);
          });
        }
      }
    });

    test('gives the weights that the portable kernels give, and nearly their products', () => {
      const portable = devices.get('portable')!;
      const [n, k, m] = [41, 777, 9];
      const w = randomFloats(n * k, 5).map((v) => v ** 5);
      const x = randomFloats(m * k, 6).map((v) => v ** 7 * 100);
      const bias = randomFloats(n, 7);
      const [own, other] = [pack(device, w, n, k), pack(portable, w, n, k)];
      expect(weightBytes(own)).toEqual(weightBytes(other));
      const expected = multiply(portable, x, other, bias, m);
      const spread = Math.sqrt(expected.reduce((sum, v) => sum + v * v, 0) / expected.length);
      const bound = multipliesHalves(isa) ? 0.02 * spread : 1e-3;
      expect(maxError(multiply(device, x, own, bias, m), expected)).toBeLessThan(bound);
    });

    test('gives a row the same bits alone, in every batch and with every number of threads', () => {
      const [n, k, m] = [67, 1101, 205];
      const w = randomFloats(n * k, 1);
      const x = randomFloats(m * k, 2);
      const packed = pack(device, w, n, k);
      const all = multiply(device, x, packed, null, m);
      for (const count of [...Array.from({ length: 40 }, (_, i) => i + 1), 48, 49, 64, 65, 97]) {
        const part = multiply(device, x.subarray(0, count * k), packed, null, count);
        expect(bytesOf(part).equals(bytesOf(all.subarray(0, count * n)))).toBe(true);
      }
      for (const threads of [1, 3]) {
        const other = openDevice(threads, isa);
        const result = multiply(other, x, pack(other, w, n, k), null, m);
        expect(bytesOf(result).equals(bytesOf(all))).toBe(true);
        other.close();
      }
    });

    test('a weight that is not finite makes its feature NaN, a number of x its row; tiny weights vanish', () => {
      const [n, k] = [3, 200];
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const w = new Float32Array(n * k).fill(1e-42);
        w[k + 150] = bad;
        const out = multiply(device, new Float32Array(2 * k).fill(1), pack(device, w, n, k), null, 2);
        expect([...out]).toEqual([0, Number.NaN, 0, 0, Number.NaN, 0]);
      }
      const x = new Float32Array(2 * k).fill(1);
      x[k + 3] = Number.NaN;
      const out = multiply(device, x, pack(device, new Float32Array(n * k).fill(1), n, k), null, 2);
      expect([...out]).toEqual([k, k, k, Number.NaN, Number.NaN, Number.NaN]);
    });

    test('takes the numbers and scales of a checkpoint as they are, every number there is', () => {
      const [n, k, ld] = [4, 200, 203];
      const bytes = Uint8Array.from({ length: n * ld }, (_, i) => (i * 7) & 0xff);
      // No NaN but for one of row 2.
      bytes.forEach((byte, i) => {
        if ((byte & 0x7f) === 0x7f) bytes[i] = 0x01;
      });
      bytes[2 * ld + 199] = 0xff;
      const scales = Float32Array.of(1, 0.5, 0.37, 3e-5, 2, 0.25, 8, 1e4);
      const packed = device.packQuantizedLinear([fp8Source(device, bytes, n, k, ld, scales)], 'fp8', 'weight');
      const kept = weightsOf(packed);
      for (let row = 0; row < n; row++) {
        for (let col = 0; col < k; col++) {
          const isNaNGroup = row === 2 && col >= FP8_GROUP;
          const scale = scales[row * 2 + Math.floor(col / FP8_GROUP)]!;
          const expected = isNaNGroup ? Number.NaN : Math.fround(fp8ToFloat(bytes[row * ld + col]!) * scale);
          expect(kept[row * k + col]).toBe(expected);
        }
      }
      const x = randomFloats(k, 4);
      const bias = new Float32Array(n);
      const expected = product(x, kept, bias, [1, n, k]);
      const out = multiply(device, x, packed, null, 1);
      expect(out[2]).toBeNaN();
      // In matrix registers x has 8 bits, as halves 11.
      const error = multipliesMatrices(isa) ? 8e-3 : multipliesHalves(isa) ? 5e-4 : 1e-5;
      for (const row of [0, 1, 3]) {
        expect(Math.abs(out[row]! - expected[row]!)).toBeLessThan(error * 448 * 1e4);
      }
      expect(Math.abs(out[0]! - expected[0]!)).toBeLessThan(error * 448 * k);
    });

    test('sources of several types and odd heights are stacked, with rows apart', () => {
      const [k, ld] = [37, 41];
      const heights = [5, 40, 1];
      const values = heights.map((rows, i) => randomFloats(rows * ld, i));
      const sources: QuantizableSource[] = heights.map((rows, i) => {
        const dtype: FloatDType = FLOAT_DTYPES[i]!;
        return { ptr: stored(device, values[i]!, dtype).ptr, dtype, rows, cols: k, ld };
      });
      const bytes = new Uint8Array(ld).fill(0x38);
      sources.push(fp8Source(device, bytes, 1, k, ld, Float32Array.of(0.25)));
      const kept = weightsOf(device.packQuantizedLinear(sources, 'fp8', 'stacked'));
      const rows = heights.flatMap((height, i) => {
        const exact = rounded(values[i]!, FLOAT_DTYPES[i]!);
        return Array.from({ length: height }, (_, row) => [...exact.subarray(row * ld, row * ld + k)]);
      });
      rows.push(new Array<number>(k).fill(0.25));
      expect(maxError(kept, rows.flat())).toBeLessThan(2 ** -4);
    });

    test('quantized_grouped_linear gives each expert’s rows the bits of quantized_linear', () => {
      const [n, k] = [37, 130];
      // None, few, more than a tile of rows.
      const counts = [0, 1, 3, 0, 40, 110];
      const offsets = [0];
      for (const count of counts) offsets.push(offsets.at(-1)! + count);
      const rows = offsets.at(-1)!;
      const x = randomFloats(rows * k, 1);
      const biases = randomFloats(counts.length * n, 2);
      const weights = counts.map((_, expert) => pack(device, randomFloats(n * k, 10 + expert), n, k));
      const addresses = device.staging(counts.length * 8, 'test');
      new BigInt64Array(addresses.host).set(weights.map(({ ptr }) => BigInt(ptr)));
      const out = floats(device, new Float32Array(rows * n).fill(Number.NaN));
      device.ops.quantized_grouped_linear(
        ...([floats(device, x).ptr, k, addresses.ptr, QUANTIZATION_CODES.fp8, floats(device, biases).ptr] as const),
        ...([ints(device, offsets).ptr, counts.length, out.ptr, n, rows, n, k] as const),
      );
      finish(device);
      const actual = out.f32.slice(0, rows * n);
      counts.forEach((count, expert) => {
        if (count === 0) return;
        const begin = offsets[expert]!;
        const own = x.slice(begin * k, (begin + count) * k);
        const bias = biases.slice(expert * n, (expert + 1) * n);
        const expected = multiply(device, own, weights[expert]!, bias, count).slice(0, count * n);
        expect(bytesOf(actual.slice(begin * n, (begin + count) * n)).equals(bytesOf(expected))).toBe(true);
      });
    });
  });
}

test('8-bit floats become nothing but fp8, and need a scale for each group', () => {
  const device = devices.get('portable')!;
  const source = fp8Source(device, new Uint8Array(300), 2, 150, 150, new Float32Array(4));
  expect(() => device.packQuantizedLinear([source], 'int8', 'q_proj')).toThrow(
    "q_proj: can't quantize 8-bit floats as int8",
  );
  expect(() => device.packQuantizedLinear([{ ...source, scales: new Float32Array(2) }], 'fp8', 'q_proj')).toThrow(
    'q_proj: 2 scales for [2, 150], expected 4',
  );
});
