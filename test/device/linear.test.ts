import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import type { PackedLinear } from '../../src/device/device.ts';
import { DTYPE_CODES, type FloatDType } from '../../src/device/dtype.ts';
import {
  availableIsas,
  FLOAT_DTYPES,
  finish,
  floats,
  ints,
  maxError,
  multipliesHalves,
  openDevice,
  randomFloats,
  rounded,
  stored,
} from './harness.ts';

const ISAS = availableIsas();
const devices = new Map(ISAS.map((isa) => [isa, openDevice(2, isa)]));
afterAll(() => {
  for (const device of devices.values()) device.close();
});

/** out[m, n] in double precision. */
function reference(x: Float32Array, w: Float32Array, bias: Float32Array | null, m: number, n: number, k: number) {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = bias?.[j] ?? 0;
      for (let l = 0; l < k; l++) sum += x[i * k + l]! * w[j * k + l]!;
      out[i * n + j] = sum;
    }
  }
  return out;
}

function pack(device: CpuDevice, w: Float32Array, n: number, k: number, dtype: FloatDType): PackedLinear {
  const source = floats(device, w);
  return device.packLinear([{ ptr: source.ptr, dtype: 'float32', rows: n, cols: k, ld: k }], dtype, 'weight');
}

function linear(
  device: CpuDevice,
  x: Float32Array,
  w: PackedLinear,
  bias: Float32Array | null,
  m: number,
): Float32Array {
  const out = floats(device, new Float32Array(m * w.n).fill(Number.NaN));
  const biasPtr = bias ? floats(device, bias).ptr : 0;
  device.ops.linear(floats(device, x).ptr, w.k, w.ptr, DTYPE_CODES[w.dtype], biasPtr, out.ptr, w.n, m, w.n, w.k);
  finish(device);
  return out.f32.slice();
}

/**
 * Rounding of x to bfloat16 (VDPBF16PS, AMX) moves a sum of k products of numbers below 1 by up to k / 512. Products of halves have an error of 0.0009 of
 * the sum's own spread, which is a third of k's root here; 0.004 of the root is 13 times that.
 */
function tolerance(device: CpuDevice, dtype: FloatDType, k: number): number {
  if ((device.isa === 'avx512_bf16' || device.isa === 'avx512_amx') && dtype === 'bfloat16') return k / 512;
  if (multipliesHalves(device.isa) && dtype !== 'float32') return 4e-3 * Math.sqrt(k);
  return 1e-6 * k + 1e-6;
}

const SHAPES: [n: number, k: number][] = [
  [1, 1],
  [33, 7],
  [31, 64],
  [96, 130],
  [70, 1031],
];

for (const [isa, device] of devices) {
  describe(`linear, ${isa}`, () => {
    for (const dtype of FLOAT_DTYPES) {
      test(`${dtype} equals the plain product for every row count and odd shapes`, () => {
        for (const [n, k] of SHAPES) {
          const w = randomFloats(n * k, n + k);
          const bias = randomFloats(n, 3);
          const packed = pack(device, w, n, k, dtype);
          for (const m of [1, 2, 3, 5, 8, 13, 15, 17, 33, 64, 101]) {
            const x = randomFloats(m * k, m);
            const expected = reference(x, rounded(w, dtype), bias, m, n, k);
            expect(maxError(linear(device, x, packed, bias, m), expected)).toBeLessThan(tolerance(device, dtype, k));
          }
        }
      });

      test(`${dtype} gives a row the same bits alone, in every batch and with every number of threads`, () => {
        const [n, k, m] = [67, 1101, 205];
        const w = randomFloats(n * k, 1);
        const x = randomFloats(m * k, 2);
        const packed = pack(device, w, n, k, dtype);
        const all = linear(device, x, packed, null, m);
        for (const count of [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 20, 25, 31, 50, 57, 97, 99]) {
          const part = linear(device, x.subarray(0, count * k), packed, null, count);
          expect(Buffer.from(part.buffer).equals(Buffer.from(all.buffer, 0, count * n * 4))).toBe(true);
        }
        for (const threads of [1, 3]) {
          const other = openDevice(threads, isa);
          const result = linear(other, x, pack(other, w, n, k, dtype), null, m);
          expect(Buffer.from(result.buffer).equals(Buffer.from(all.buffer))).toBe(true);
          other.close();
        }
      });
    }

    test('a row has the same bits in every batch where products are too small for normal numbers', () => {
      const [n, k, m] = [33, 160, 40];
      const scaled = (values: Float32Array, factor: number) => values.map((value) => value * factor);
      const packed = pack(device, scaled(randomFloats(n * k, 1), 1e-20), n, k, 'bfloat16');
      const x = scaled(randomFloats(m * k, 2), 1e-19);
      const all = linear(device, x, packed, null, m);
      for (const count of [1, 4, 5, 16, 17]) {
        const part = linear(device, x.subarray(0, count * k), packed, null, count);
        expect(Buffer.from(part.buffer).equals(Buffer.from(all.buffer, 0, count * n * 4))).toBe(true);
      }
    });

    test('sources of several types and odd heights are stacked, with rows apart', () => {
      const k = 37;
      const heights = [5, 40, 1];
      const ld = 41;
      const values = heights.map((rows, i) => randomFloats(rows * ld, i));
      const sources = heights.map((rows, i) => {
        const dtype = FLOAT_DTYPES[i]!;
        return { ptr: stored(device, values[i]!, dtype).ptr, dtype, rows, cols: k, ld };
      });
      const packed = device.packLinear(sources, 'float32', 'stacked');
      const rows = heights.flatMap((height, i) => {
        const exact = rounded(values[i]!, FLOAT_DTYPES[i]!);
        return Array.from({ length: height }, (_, row) => [...exact.subarray(row * ld, row * ld + k)]);
      });
      const x = randomFloats(3 * k, 9);
      const expected = reference(x, Float32Array.from(rows.flat()), null, 3, rows.length, k);
      expect(packed.n).toBe(46);
      expect(maxError(linear(device, x, packed, null, 3), expected)).toBeLessThan(1e-4);
    });

    test('rows of x and out may be apart, and nothing else is written', () => {
      const [n, k, ldX, ldOut] = [35, 20, 23, 40];
      const w = randomFloats(n * k, 4);
      const packed = pack(device, w, n, k, 'float32');
      for (const m of [9, 67]) {
        const x = randomFloats(m * ldX, 5);
        const out = floats(device, new Float32Array(m * ldOut).fill(7));
        device.ops.linear(floats(device, x).ptr, ldX, packed.ptr, 0, 0, out.ptr, ldOut, m, n, k);
        finish(device);
        for (let i = 0; i < m; i++) {
          const expected = reference(x.subarray(i * ldX, i * ldX + k), w, null, 1, n, k);
          expect(maxError(out.f32.subarray(i * ldOut, i * ldOut + n), expected)).toBeLessThan(1e-4);
          expect([...out.f32.subarray(i * ldOut + n, (i + 1) * ldOut)]).toEqual([7, 7, 7, 7, 7]);
        }
      }
    });
  });
}

/** The rows of a packed weight, as the embedding lookup gives them. */
function unpacked(device: CpuDevice, packed: PackedLinear): number[] {
  const out = floats(device, new Float32Array(packed.n * packed.k).fill(Number.NaN));
  const ids = ints(
    device,
    Array.from({ length: packed.n }, (_, row) => row),
  );
  device.ops.embedding(ids.ptr, packed.ptr, DTYPE_CODES[packed.dtype], out.ptr, packed.n, packed.k, packed.n, 1);
  finish(device);
  return [...out.f32];
}

test('half types round to nearest, ties to even, from subnormals to infinity', () => {
  const values = [0, -0, 1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 65504, 65519, 65520, -1e30];
  values.push(2 ** -24, 2 ** -25, 3 * 2 ** -25, 2 ** -14 - 2 ** -25, 5.9e-8, -3.1e-5, 1e38, 0.1, -1 / 3);
  values.push(...randomFloats(100, 1).map((v, i) => v * 2 ** ((i % 40) - 28)));
  for (const device of devices.values()) {
    for (const dtype of FLOAT_DTYPES) {
      const packed = pack(device, Float32Array.from(values), values.length, 1, dtype);
      expect(unpacked(device, packed)).toEqual([...rounded(values, dtype)]);
    }
  }
});

test('bfloat16 weights stay exact beside ones that are 500,000 times as large, and lose less than 2^-27 of those beside larger ones', () => {
  const [n, k] = [19, 83];
  const exponents = [0, 10, -30, 100, -100];
  const wide = Float32Array.from(randomFloats(n * k, 5), (v, i) => {
    const largest = 2 ** exponents[Math.floor(i / k) % exponents.length]!;
    return i % k === 7 ? 1.5 * largest : v * largest * 2 ** -(i % 19);
  });
  const wider = wide.map((v, i) => (i % 5 === 0 && i % k !== 7 ? v * 2 ** -25 : v));
  for (const device of devices.values()) {
    const exact = rounded(wide, 'bfloat16');
    const lowest = (row: number) => 2 ** -19 * 2 ** exponents[row % exponents.length]!;
    const result = unpacked(device, pack(device, wide, n, k, 'bfloat16'));
    for (const [i, v] of exact.entries()) {
      if (Math.abs(v) >= lowest(Math.floor(i / k))) expect(result[i]).toBe(v);
    }
    const others = unpacked(device, pack(device, wider, n, k, 'bfloat16'));
    for (const [i, v] of rounded(wider, 'bfloat16').entries()) {
      expect(Math.abs(others[i]! - v)).toBeLessThanOrEqual(
        2 ** -27 * 2 ** exponents[Math.floor(i / k) % exponents.length]!,
      );
    }
  }
});
