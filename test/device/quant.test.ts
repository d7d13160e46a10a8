import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import type { QuantizedLinear } from '../../src/device/device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { QUANTIZATION_CODES, type QuantizationScheme } from '../../src/device/quantization-scheme.ts';
import {
  availableIsas,
  FLOAT_DTYPES,
  finish,
  floats,
  ints,
  maxError,
  openDevice,
  randomFloats,
  rounded,
  stored,
} from './harness.ts';
import { dequantizedActivations, GROUP, product, unpackedWeights } from './quant-reference.ts';

const ISAS = availableIsas();
const devices = new Map(ISAS.map((isa) => [isa, openDevice(2, isa)]));
afterAll(() => {
  for (const device of devices.values()) device.close();
});

const SCHEMES = ['int8', 'int4'] as const;

function pack(device: CpuDevice, w: Float32Array, n: number, k: number, scheme: QuantizationScheme): QuantizedLinear {
  const source = { ptr: floats(device, w).ptr, dtype: 'float32' as const, rows: n, cols: k, ld: k };
  return device.packQuantizedLinear([source], scheme, 'weight');
}

function multiply(device: CpuDevice, x: Float32Array, w: QuantizedLinear, bias: Float32Array | null, m: number) {
  const out = floats(device, new Float32Array(m * w.n).fill(Number.NaN));
  const biasPtr = bias ? floats(device, bias).ptr : 0;
  const code = QUANTIZATION_CODES[w.scheme];
  device.ops.quantized_linear(floats(device, x).ptr, w.k, w.ptr, code, biasPtr, out.ptr, w.n, m, w.n, w.k);
  finish(device);
  return out.f32.slice();
}

const bytesOf = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
const wordsOf = (w: QuantizedLinear) => new Uint32Array(toArrayBuffer(w.ptr as Pointer, 0, w.bytes)).slice();

/** More than one piece of rows, the last one broken. */
const MOST_ROWS = 275;

const SHAPES: [n: number, k: number][] = [
  [1, 1],
  [33, 7],
  [31, 64],
  [96, 130],
  [70, 1031],
];

for (const [isa, device] of devices) {
  describe(`quantized_linear, ${isa}`, () => {
    for (const scheme of SCHEMES) {
      test(`${scheme} is the product of the quantized sides, for every row count and odd shapes`, () => {
        for (const [n, k] of SHAPES) {
          const packed = pack(device, randomFloats(n * k, n + k), n, k, scheme);
          const w = unpackedWeights(wordsOf(packed), n, k, scheme);
          const bias = randomFloats(n, 3);
          for (const m of [1, 2, 3, 4, 5, 13, 33]) {
            const x = randomFloats(m * k, m);
            const expected = product(dequantizedActivations(x, m, k, GROUP[scheme]), w, bias, [m, n, k]);
            expect(maxError(multiply(device, x, packed, bias, m), expected)).toBeLessThan(1e-6 * k + 1e-6);
          }
        }
      });

      test(`${scheme} weights are within a step of the source, and zero is exact`, () => {
        const [n, k] = [35, 203];
        const w = randomFloats(n * k, 8).map((v, i) => (i % 5 === 0 ? 0 : v));
        const stored = unpackedWeights(wordsOf(pack(device, w, n, k, scheme)), n, k, scheme);
        // Half a step of 2 / 255 or 2 / 15; 4-bit ranges may be clipped by up to a quarter of 1 and moved by half a step.
        const bound = scheme === 'int8' ? 1.01 / 254 : 0.25 + 1.01 / 15;
        expect(maxError(stored, w)).toBeLessThan(bound);
        w.forEach((v, i) => {
          if (v === 0) expect(stored[i]).toBe(0);
        });
      });

      test(`${scheme} gives a row the same bits alone, in every batch and with every number of threads`, () => {
        const [n, k, m] = [67, 1101, 205];
        const w = randomFloats(n * k, 1);
        const x = randomFloats(m * k, 2);
        const packed = pack(device, w, n, k, scheme);
        const all = multiply(device, x, packed, null, m);
        for (const count of [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 20, 25, 50, 57, 97, 99]) {
          const part = multiply(device, x.subarray(0, count * k), packed, null, count);
          expect(bytesOf(part).equals(bytesOf(all.subarray(0, count * n)))).toBe(true);
        }
        for (const threads of [1, 3]) {
          const other = openDevice(threads, isa);
          const result = multiply(other, x, pack(other, w, n, k, scheme), null, m);
          expect(bytesOf(result).equals(bytesOf(all))).toBe(true);
          other.close();
        }
      });

      test(`${scheme}: threads share out every panel once, however many there are of either`, () => {
        for (const [n, k] of [
          [33, 65],
          [200, 40],
          [2100, 64],
          [640, 1030],
        ] as const) {
          const [w, x] = [randomFloats(n * k, n), randomFloats(26 * k, k)];
          const ofThreads = [1, 2, 3, 5].map((threads) => {
            const other = openDevice(threads, isa);
            const packed = pack(other, w, n, k, scheme);
            const results = [1, 6, 26].map((m) => multiply(other, x.subarray(0, m * k), packed, null, m));
            other.close();
            return results;
          });
          for (const results of ofThreads) expect(results).toEqual(ofThreads[0]!);
          expect(ofThreads[0]!.every((result) => result.every(Number.isFinite))).toBe(true);
        }
      });

      test(`${scheme} gives the bits of the portable kernels`, () => {
        const portable = devices.get('portable')!;
        // Whole and broken groups of k; one panel, a pair, and both.
        for (const [n, k] of [
          [41, 777],
          [16, 64],
          [64, 384],
          [50, 5],
        ] as const) {
          const w = randomFloats(n * k, 5).map((v) => v ** 5);
          const x = randomFloats(MOST_ROWS * k, 6).map((v) => v ** 7 * 100);
          const bias = randomFloats(n, 7);
          const [own, other] = [pack(device, w, n, k, scheme), pack(portable, w, n, k, scheme)];
          expect(wordsOf(own)).toEqual(wordsOf(other));
          const expected = multiply(portable, x, other, bias, MOST_ROWS);
          for (const m of [1, 4, 5, 8, 9, 15, 16, 17, 24, 25, 31, 32, 33, 48, 96, 97, 112, 128, 129, MOST_ROWS]) {
            const actual = multiply(device, x.subarray(0, m * k), own, bias, m);
            expect(bytesOf(actual).equals(bytesOf(expected.subarray(0, m * n)))).toBe(true);
          }
        }
      });

      test(`${scheme} sums the greatest numbers without saturation`, () => {
        const k = 512;
        const packed = pack(device, new Float32Array(32 * k).fill(1), 32, k, scheme);
        const x = Float32Array.from({ length: 2 * k }, (_, i) => (i < k ? 1 : -1));
        const out = multiply(device, x, packed, null, 2);
        // A scale of 1 / 127 or 1 / 15, rounded to bfloat16, is off by at most 2^-7 of it.
        expect(
          maxError(
            out,
            Array.from(out, (_, i) => (i < 32 ? k : -k)),
          ),
        ).toBeLessThan(k / 100);
      });

      test(`${scheme}: a number that is not finite makes its own row NaN, tiny ones vanish`, () => {
        const [n, k] = [3, 200];
        const packed = pack(device, randomFloats(n * k, 1), n, k, scheme);
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          const x = new Float32Array(3 * k).fill(1e-42);
          x[k + 150] = bad;
          const out = multiply(device, x, packed, null, 3);
          expect([...out]).toEqual([0, 0, 0, Number.NaN, Number.NaN, Number.NaN, 0, 0, 0]);
        }
      });
    }

    test('sources of several types and odd heights are stacked, with rows apart', () => {
      const [k, ld] = [37, 41];
      const heights = [5, 40, 1];
      const values = heights.map((rows, i) => randomFloats(rows * ld, i));
      const sources = heights.map((rows, i) => {
        const dtype: FloatDType = FLOAT_DTYPES[i]!;
        return { ptr: stored(device, values[i]!, dtype).ptr, dtype, rows, cols: k, ld };
      });
      const packed = device.packQuantizedLinear(sources, 'int8', 'stacked');
      const rows = heights.flatMap((height, i) => {
        const exact = rounded(values[i]!, FLOAT_DTYPES[i]!);
        return Array.from({ length: height }, (_, row) => [...exact.subarray(row * ld, row * ld + k)]);
      });
      expect(packed.n).toBe(46);
      expect(maxError(unpackedWeights(wordsOf(packed), 46, k, 'int8'), rows.flat())).toBeLessThan(1.01 / 254);
    });

    test('rows of x and out may be apart, and nothing else is written', () => {
      for (const m of [2, 9]) {
        const [n, k, ldX, ldOut] = [35, 20, 23, 40];
        const packed = pack(device, randomFloats(n * k, 4), n, k, 'int4');
        const x = randomFloats(m * ldX, 5);
        const dense = Float32Array.from({ length: m * k }, (_, i) => x[Math.floor(i / k) * ldX + (i % k)]!);
        const out = floats(device, new Float32Array(m * ldOut).fill(7));
        device.ops.quantized_linear(
          floats(device, x).ptr,
          ldX,
          packed.ptr,
          QUANTIZATION_CODES.int4,
          0,
          out.ptr,
          ldOut,
          m,
          n,
          k,
        );
        finish(device);
        const expected = multiply(device, dense, packed, null, m);
        for (let i = 0; i < m; i++) {
          expect([...out.f32.subarray(i * ldOut, i * ldOut + n)]).toEqual([...expected.subarray(i * n, (i + 1) * n)]);
          expect([...out.f32.subarray(i * ldOut + n, (i + 1) * ldOut)]).toEqual([7, 7, 7, 7, 7]);
        }
      }
    });
  });
}

for (const [isa, device] of devices) {
  test(`quantized_grouped_linear gives each expert's rows the bits of quantized_linear, ${isa}`, () => {
    const [n, k] = [37, 130];
    // None, few, more than a tile of rows, more than sums are kept of at once.
    const counts = [0, 1, 3, 0, 40, 9, 16, 150];
    const offsets = [0];
    for (const count of counts) offsets.push(offsets.at(-1)! + count);
    const rows = offsets.at(-1)!;
    const x = randomFloats(rows * k, 1);
    const biases = randomFloats(counts.length * n, 2);
    for (const scheme of SCHEMES) {
      const weights = counts.map((_, expert) => pack(device, randomFloats(n * k, 10 + expert), n, k, scheme));
      const addresses = device.staging(counts.length * 8, 'test');
      new BigInt64Array(addresses.host).set(weights.map(({ ptr }) => BigInt(ptr)));
      const out = floats(device, new Float32Array(rows * n).fill(Number.NaN));
      device.ops.quantized_grouped_linear(
        ...([floats(device, x).ptr, k, addresses.ptr, QUANTIZATION_CODES[scheme], floats(device, biases).ptr] as const),
        ...([ints(device, offsets).ptr, counts.length, out.ptr, n, rows, n, k] as const),
      );
      finish(device);
      const actual = out.f32.slice(0, rows * n);
      counts.forEach((count, expert) => {
        if (count === 0) return;
        const begin = offsets[expert]!;
        const own = x.slice(begin * k, (begin + count) * k);
        const expected = multiply(device, own, weights[expert]!, biases.slice(expert * n, (expert + 1) * n), count);
        expect(
          bytesOf(actual.slice(begin * n, (begin + count) * n)).equals(bytesOf(expected.slice(0, count * n))),
        ).toBe(true);
      });
    }
  });
}
