import { afterAll, describe, expect, test } from 'bun:test';
import { DTYPE_CODES } from '../../src/device/dtype.ts';
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
} from './harness.ts';

const EPS = 1e-6;
const WIDTHS = [1, 3, 15, 16, 33, 64, 576, 1024, 5000];

function rmsNorm(x: ArrayLike<number>, weight: ArrayLike<number>): number[] {
  const values = Array.from(x);
  const mean = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  return values.map((value, i) => (value / Math.sqrt(mean + EPS)) * weight[i]!);
}

function rows(values: Float32Array, n: number): Float32Array[] {
  return Array.from({ length: values.length / n }, (_, i) => values.subarray(i * n, (i + 1) * n));
}

function erf(x: number): number {
  // Maclaurin series, exact enough for |x| below 4.
  let term = x;
  let sum = x;
  for (let n = 1; n < 100; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const ACTIVATIONS = [
  (x: number) => x / (1 + Math.exp(-x)),
  (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
];

for (const isa of availableIsas()) {
  describe(`row ops, ${isa}`, () => {
    const device = openDevice(2, isa);
    afterAll(() => device.close());
    const { ops } = device;

    test('rms_norm and fused_add_rms_norm, also in place', () => {
      for (const n of WIDTHS) {
        const [x, residual, weight] = [randomFloats(7 * n, n), randomFloats(7 * n, n + 1), randomFloats(n, n + 2)];
        const expected = rows(x, n).flatMap((row) => rmsNorm(row, weight));
        const [xBuffer, weightBuffer, out] = [floats(device, x), floats(device, weight), floats(device, x)];
        ops.rms_norm(xBuffer.ptr, weightBuffer.ptr, out.ptr, 7, n, EPS);
        ops.rms_norm(xBuffer.ptr, weightBuffer.ptr, xBuffer.ptr, 7, n, EPS);
        finish(device);
        expect(maxError(out.f32, expected)).toBeLessThan(1e-5);
        expect([...xBuffer.f32]).toEqual([...out.f32]);

        const sum = x.map((value, i) => value + residual[i]!);
        const [residualBuffer, inPlace] = [floats(device, residual), floats(device, x)];
        ops.fused_add_rms_norm(inPlace.ptr, residualBuffer.ptr, weightBuffer.ptr, inPlace.ptr, 7, n, EPS);
        finish(device);
        expect([...residualBuffer.f32]).toEqual([...sum]);
        expect(
          maxError(
            inPlace.f32,
            rows(sum, n).flatMap((row) => rmsNorm(row, weight)),
          ),
        ).toBeLessThan(1e-5);
      }
    });

    test('a row of rms_norm has the same bits in every batch', () => {
      const [n, m] = [577, 40];
      const x = randomFloats(m * n, 1);
      const weight = floats(device, randomFloats(n, 2)).ptr;
      const [input, all, alone] = [floats(device, x), floats(device, x), floats(device, x)];
      ops.rms_norm(input.ptr, weight, all.ptr, m, n, EPS);
      for (let i = 0; i < m; i++) ops.rms_norm(input.ptr + i * n * 4, weight, alone.ptr + i * n * 4, 1, n, EPS);
      finish(device);
      expect([...alone.f32]).toEqual([...all.f32]);
    });

    test('add and soft_cap, over chunks, in place and beyond the cap', () => {
      for (const count of [1, 15, 33, 8192, 20_001]) {
        const [x, y] = [randomFloats(count, 1).map((value) => value * 200), randomFloats(count, 2)];
        const [left, right, sum] = [floats(device, x), floats(device, y), floats(device, x)];
        const capped = floats(device, x);
        ops.add(left.ptr, right.ptr, sum.ptr, count);
        ops.add(left.ptr, right.ptr, left.ptr, count);
        ops.soft_cap(capped.ptr, count, 30);
        finish(device);
        expect([...sum.f32]).toEqual([...x.map((value, i) => value + y[i]!)]);
        expect([...left.f32]).toEqual([...sum.f32]);
        const expected = Array.from(x, (value) => 30 * Math.tanh(value / 30));
        expect(maxError(capped.f32, expected)).toBeLessThan(2e-5);
      }
    });

    test('qk_norm_rope norms one wide head where there is no key head and no rotation', () => {
      const [n, ld, tokens] = [96, 131, 4];
      const [x, weight] = [randomFloats(tokens * ld, 3), randomFloats(n, 4)];
      const qkv = floats(device, x);
      ops.qk_norm_rope(qkv.ptr, ld, 0, 0, floats(device, weight).ptr, 0, EPS, tokens, 1, 0, n, 0, 0);
      finish(device);
      const expected = x.slice();
      for (let at = 0; at < x.length; at += ld) expected.set(rmsNorm(x.subarray(at, at + n), weight), at);
      expect(maxError(qkv.f32, expected)).toBeLessThan(1e-5);
    });

    test('qk_norm_rope, both layouts, partial rotation, with and without norms; values stay', () => {
      const [heads, kvHeads, tokens, maxPosition] = [3, 2, 5, 40];
      for (const headDim of [16, 24, 80, 128]) {
        for (const rotaryDim of [0, 8, headDim]) {
          for (const interleaved of [0, 1]) {
            for (const normed of [false, true]) {
              const ld = (heads + 2 * kvHeads) * headDim + 3;
              const qkv = randomFloats(tokens * ld, headDim);
              const cosSin = randomFloats(maxPosition * Math.max(1, rotaryDim), 5);
              const positions = [0, 39, 7, 7, 20];
              const [qWeight, kWeight] = [randomFloats(headDim, 6), randomFloats(headDim, 7)];
              const expected = qkv.slice();
              const half = rotaryDim / 2;
              for (let token = 0; token < tokens; token++) {
                for (let head = 0; head < heads + kvHeads; head++) {
                  const at = token * ld + head * headDim;
                  const row = expected.subarray(at, at + headDim);
                  if (normed) row.set(rmsNorm(row, head < heads ? qWeight : kWeight));
                  for (let i = 0; i < half; i++) {
                    const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + half];
                    const [first, second] = [row[a]!, row[b]!];
                    const cos = cosSin[positions[token]! * rotaryDim + i]!;
                    const sin = cosSin[positions[token]! * rotaryDim + half + i]!;
                    row[a] = first * cos - second * sin;
                    row[b] = second * cos + first * sin;
                  }
                }
              }
              const actual = floats(device, qkv);
              const weights = normed ? [floats(device, qWeight).ptr, floats(device, kWeight).ptr] : [0, 0];
              const table = rotaryDim > 0 ? floats(device, cosSin).ptr : 0;
              const at = ints(device, positions).ptr;
              ops.qk_norm_rope(
                ...[actual.ptr, ld, at, table, ...weights, EPS],
                ...[tokens, heads, kvHeads, headDim, rotaryDim, interleaved],
              );
              finish(device);
              expect(maxError(actual.f32, expected)).toBeLessThan(2e-6);
            }
          }
        }
      }
    });

    test('act_and_mul, all kinds, from far below zero to far above', () => {
      for (const n of [1, 7, 16, 100, 3072, 5001]) {
        const gateUp = randomFloats(3 * 2 * n, n).map((value, i) => (i % (2 * n) < n ? value * 5 : value));
        ACTIVATIONS.forEach((activation, kind) => {
          const expected = rows(gateUp, 2 * n).flatMap((row) =>
            Array.from({ length: n }, (_, i) => activation(row[i]!) * row[n + i]!),
          );
          const out = floats(device, new Float32Array(3 * n));
          ops.act_and_mul(floats(device, gateUp).ptr, out.ptr, 3, n, kind);
          finish(device);
          expect(maxError(out.f32, expected)).toBeLessThan(3e-6);
        });
      }
      const extreme = [-1e30, -200, -90, 90, 200, 1e30].flatMap((x) => [x, 1]);
      const out = floats(device, new Float32Array(6));
      ops.act_and_mul(floats(device, extreme).ptr, out.ptr, 6, 1, 0);
      finish(device);
      expect(maxError(out.f32, [0, 0, 0, 90, 200, Math.fround(1e30)])).toBeLessThan(1e-5);
    });

    test('embedding scales rows of every type and gives zeros for ids outside', () => {
      const [vocab, hidden] = [11, 70];
      const table = randomFloats(vocab * hidden, 8);
      const ids = [10, 0, -1, 11, 3, 2 ** 31 - 1];
      for (const dtype of FLOAT_DTYPES) {
        const source = floats(device, table);
        const matrix = { ptr: source.ptr, dtype: 'float32', rows: vocab, cols: hidden, ld: hidden } as const;
        const stored = device.packLinear([matrix], dtype, 'table').ptr;
        const out = floats(device, new Float32Array(ids.length * hidden).fill(9));
        ops.embedding(ints(device, ids).ptr, stored, DTYPE_CODES[dtype], out.ptr, ids.length, hidden, vocab, 2.5);
        finish(device);
        const values = rounded(table, dtype);
        const expected = ids.flatMap((id) =>
          Array.from({ length: hidden }, (_, i) => (id >= 0 && id < vocab ? values[id * hidden + i]! * 2.5 : 0)),
        );
        expect(maxError(out.f32, expected)).toBeLessThan(1e-6);
      }
    });
  });
}

describe('gathers and copies', () => {
  const device = openDevice();
  afterAll(() => device.close());
  const { ops } = device;

  test('gather_token_ids reads the table at slots and positions', () => {
    const table = Int32Array.from({ length: 4 * 50 }, (_, i) => i * 3);
    const out = ints(device, new Int32Array(4));
    const [slots, positions] = [ints(device, [3, 0, 1, 3]), ints(device, [49, 0, 7, 48])];
    ops.gather_token_ids(ints(device, table).ptr, 50, slots.ptr, positions.ptr, out.ptr, 4);
    finish(device);
    expect([...out.i32]).toEqual([199 * 3, 0, 57 * 3, 198 * 3]);
  });

  test('gather_rows copies rows in any order', () => {
    const x = randomFloats(6 * 37, 1);
    const indices = [5, 0, 5, 2];
    const out = floats(device, new Float32Array(4 * 37));
    ops.gather_rows(floats(device, x).ptr, ints(device, indices).ptr, out.ptr, 4, 37);
    finish(device);
    expect([...out.f32]).toEqual(indices.flatMap((i) => [...x.subarray(i * 37, i * 37 + 37)]));
  });

  test('copy_blocks copies whole blocks, a chain of pairs in its order', () => {
    const blockFloats = 40_000;
    const cache = floats(device, randomFloats(4 * blockFloats, 2));
    const before = cache.f32.slice();
    ops.copy_blocks(cache.ptr, ints(device, [0, 2, 2, 3, 1, 1]).ptr, 3, blockFloats * 4);
    finish(device);
    const first = before.subarray(0, blockFloats);
    expect(maxError(cache.f32.subarray(2 * blockFloats, 3 * blockFloats), first)).toBe(0);
    expect(maxError(cache.f32.subarray(3 * blockFloats), first)).toBe(0);
    expect(
      maxError(cache.f32.subarray(blockFloats, 2 * blockFloats), before.subarray(blockFloats, 2 * blockFloats)),
    ).toBe(0);
  });

  test('copy_bytes copies what does not fit one chunk', () => {
    const values = randomFloats(300_001, 3);
    const out = floats(device, new Float32Array(values.length));
    ops.copy_bytes(floats(device, values).ptr, out.ptr, values.byteLength);
    finish(device);
    expect(maxError(out.f32, values)).toBe(0);
  });
});
