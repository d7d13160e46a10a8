import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { ISA_CODES } from '../../src/device/cpu-library.ts';
import { type CacheDType, DTYPE_CODES } from '../../src/device/dtype.ts';
import { attend, type Contents, contents, reference, type Sequence, type Shape } from './attention-reference.ts';
import { fp8ToFloat } from './fp8-reference.ts';
import {
  availableIsas,
  buffer,
  CACHE_DTYPES,
  finish,
  floats,
  ints,
  maxError,
  multipliesHalves,
  openDevice,
  randomFloats,
  rounded,
} from './harness.ts';

/**
 * Contents of 8-bit floats of one exponent (0 to 15) each, all of them together having every finite number; queries give scores of about 1.
 */
function fp8Contents(shape: Shape, length: number, exponent: number): Contents {
  const { heads, kvHeads, headDim } = shape;
  const numbers = (seed: number) =>
    randomFloats(length * kvHeads * headDim, seed).map((x) => {
      const mantissa = Math.floor(Math.abs(x) * (exponent === 15 ? 7 : 8));
      return fp8ToFloat((x < 0 ? 0x80 : 0) | (exponent << 3) | mantissa);
    });
  const scale = 2 ** (7 - exponent) / Math.sqrt(headDim);
  const q = randomFloats(length * heads * headDim, exponent).map((x) => x * scale);
  return { q, k: numbers(100 + exponent), v: numbers(200 + exponent) };
}

/**
 * Whether products with an fp8 cache are added as halves for a while. Each of their sums has 11 bits where numbers of the cache have 4, so that results
 * stay within a tenth of what the cache's own rounding changes: the root mean square of a number's rounding to 4 bits is 0.026 of it. Tests allow half of that,
 * twice the most that is measured.
 */
function addsHalves(device: CpuDevice): boolean {
  return multipliesHalves(device.isa);
}

/**
 * The most that an element may be off. Where a bfloat16 cache is multiplied in matrix registers, queries and probabilities are rounded to bfloat16, too:
 * that changes about as much as the rounding of keys and values, for which tests allow twice that.
 */
function toleranceOf(device: CpuDevice, shape: Shape, all: Contents[], sequences: Sequence[]): number {
  const share = shape.dtype === 'fp8_e4m3' && addsHalves(device) ? 0.1 : roundsToBfloat16(device, shape.dtype) ? 2 : 0;
  if (share === 0) return 5e-6;
  const exact = reference({ ...shape, dtype: 'float32' }, all, sequences);
  return share * maxError(exact, reference(shape, all, sequences));
}

function roundsToBfloat16(device: CpuDevice, dtype: CacheDType): boolean {
  return dtype === 'bfloat16' && ISA_CODES[device.isa] >= ISA_CODES.avx512_amx;
}

function rootMeanSquare(values: ArrayLike<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, x) => sum + x * x, 0) / values.length);
}

/** Where each sequence's outputs begin and end. */
function outputRanges(shape: Shape, sequences: Sequence[]): [number, number][] {
  let end = 0;
  return sequences.map(({ queries }) => {
    const begin = end;
    end += queries * shape.heads * shape.headDim;
    return [begin, end];
  });
}

const BASE: Shape = { heads: 4, kvHeads: 2, headDim: 32, blockSize: 16, dtype: 'float32' };
const MIXED: Sequence[] = [
  { length: 1, queries: 1 },
  { length: 16, queries: 16 },
  { length: 17, queries: 1 },
  { length: 65, queries: 3 },
  { length: 64, queries: 0 },
  { length: 130, queries: 130 },
  { length: 600, queries: 2 },
];

const VARIANTS: Record<string, Partial<Shape>> = {
  'full attention': {},
  'head_dim 16': { headDim: 16 },
  'head_dim 24': { headDim: 24 },
  'head_dim 64': { headDim: 64 },
  'head_dim 80': { headDim: 80 },
  'head_dim 128': { headDim: 128, heads: 2, kvHeads: 1 },
  'head_dim 256': { headDim: 256, heads: 2, kvHeads: 1 },
  'one query head a key head': { heads: 3, kvHeads: 3 },
  '7 query heads a key head': { heads: 7, kvHeads: 1 },
  '8 query heads a key head': { heads: 8, kvHeads: 1 },
  '60 query heads a key head': { heads: 60, kvHeads: 1, headDim: 16 },
  'blocks of 1': { blockSize: 1 },
  'blocks of 8': { blockSize: 8 },
  'blocks of 24': { blockSize: 24 },
  'blocks of 128': { blockSize: 128 },
  'a window': { window: 33 },
  'a window of 1': { window: 1 },
  'a window across ranges': { window: 520 },
  'a soft cap': { softCap: 0.5 },
  sinks: { sinks: Float32Array.of(0.5, -3, 12, 0) },
  'all at once': { window: 40, softCap: 2, sinks: Float32Array.of(1, 2, 3, 4), blockSize: 8, headDim: 24 },
};

for (const isa of availableIsas()) {
  describe(`paged attention, ${isa}`, () => {
    const device = openDevice(2, isa);
    afterAll(() => device.close());

    for (const [name, variant] of Object.entries(VARIANTS)) {
      test(`a mixed batch with ${name} equals the plain computation`, () => {
        const shape = { ...BASE, ...variant };
        const all = MIXED.map(({ length }, s) => contents(shape, length, 10 * s + 1));
        expect(maxError(attend(device, shape, all, MIXED), reference(shape, all, MIXED))).toBeLessThan(5e-6);
      });
    }

    for (const dtype of CACHE_DTYPES) {
      test(`a ${dtype} cache loses only the rounding of its elements`, () => {
        const shape = { ...BASE, dtype };
        const all = MIXED.map(({ length }, s) => contents(shape, length, 10 * s + 5));
        const error = maxError(attend(device, shape, all, MIXED), reference(shape, all, MIXED));
        expect(error).toBeLessThan(toleranceOf(device, shape, all, MIXED));
      });
    }

    test('an fp8 cache gives the results of a float32 cache with its numbers, whichever they are', () => {
      const sequences = Array.from({ length: 16 }, (_, i) => ({ length: 40 + 6 * i, queries: i % 5 === 0 ? 40 : 1 }));
      for (const [name, variant] of Object.entries({ ...VARIANTS, 'head_dim 21': { headDim: 21, blockSize: 32 } })) {
        const shape = { ...BASE, ...variant };
        const all = sequences.map(({ length }, exponent) => fp8Contents(shape, length, exponent));
        const [expected, actual] = (['float32', 'fp8_e4m3'] as const).map((dtype) =>
          attend(device, { ...shape, dtype }, all, sequences),
        );
        for (const [exponent, range] of outputRanges(shape, sequences).entries()) {
          const [wanted, got] = [expected!.subarray(...range), actual!.subarray(...range)];
          const tolerance = addsHalves(device) ? 0.013 * rootMeanSquare(wanted) : 0;
          const within = maxError(got, wanted) <= tolerance;
          expect({ name, exponent, within }).toEqual({ name, exponent, within: true });
        }
      }
    });

    test('the greatest numbers of an fp8 cache do not overflow, whatever the queries are', () => {
      const shape: Shape = { heads: 2, kvHeads: 1, headDim: 256, blockSize: 16, dtype: 'fp8_e4m3' };
      const length = 200;
      for (const query of [0, 1e-30, 1.999e-4, -3.99, 1e6]) {
        const content = {
          q: new Float32Array(length * 2 * 256).fill(query),
          k: new Float32Array(length * 256).fill(448),
          v: new Float32Array(length * 256).fill(448),
        };
        for (const queries of [1, length]) {
          const out = attend(device, shape, [content], [{ length, queries }]);
          expect(maxError(out, new Float32Array(out.length).fill(448))).toBeLessThan(448 * 2 ** -11);
        }
      }
    });

    test('a token has the same bits alone, in a batch, in chunks of any size, in other blocks and with other threads', () => {
      // The first one's and the last one's prompts are long enough for work items of many rows.
      const shapes: Shape[] = [
        { ...BASE, dtype: 'bfloat16', heads: 6, kvHeads: 3, headDim: 72 },
        { ...BASE, dtype: 'bfloat16', headDim: 160 },
        { ...BASE, dtype: 'bfloat16', heads: 8 },
        { ...BASE, dtype: 'bfloat16', headDim: 21, blockSize: 24 },
        { ...BASE, dtype: 'bfloat16', heads: 7, kvHeads: 1, headDim: 48, window: 70, softCap: 1, blockSize: 32 },
        { ...BASE, dtype: 'fp8_e4m3' },
        { ...BASE, dtype: 'fp8_e4m3', headDim: 70, blockSize: 48 },
        { ...BASE, dtype: 'float16', window: 70, heads: 7, kvHeads: 1, softCap: 1 },
      ];
      const length = 700;
      for (const shape of shapes) {
        const row = shape.heads * shape.headDim;
        const content = contents(shape, length, 77);
        const whole = attend(device, shape, [content], [{ length, queries: length }]);
        const tokens = (end: number, queries: number) => whole.slice((end - queries) * row, end * row);
        for (const [end, queries] of [
          [700, 1],
          [700, 2],
          [513, 1],
          [512, 3],
          [65, 1],
          [450, 33],
          [1, 1],
        ] as const) {
          const alone = attend(device, shape, [content], [{ length: end, queries }], end);
          expect(maxError(alone, tokens(end, queries))).toBe(0);
        }
        for (const blockSize of [1, 16, 64]) {
          const other = attend(device, { ...shape, blockSize }, [content], [{ length, queries: 3 }]);
          expect(maxError(other, tokens(length, 3))).toBe(0);
        }
        const batch = [
          { length: 640, queries: 1 },
          { length: 90, queries: 50 },
          { length: 700, queries: 1 },
        ];
        const expected = batch.flatMap(({ length: end, queries }) => [...tokens(end, queries)]);
        for (const threads of [1, 2, 5]) {
          const other = openDevice(threads, isa);
          expect(maxError(attend(other, shape, [content, content, content], batch, threads), expected)).toBe(0);
          other.close();
        }
      }
    });

    test('contexts that threads share give the same bits as on one thread', () => {
      const shape: Shape = { ...BASE, heads: 2, kvHeads: 1, headDim: 16, dtype: 'bfloat16' };
      const sequences = [
        { length: 4097, queries: 1 },
        { length: 1025, queries: 2 },
      ];
      const all = sequences.map(({ length }, s) => contents(shape, length, s));
      const single = openDevice(1, isa);
      const expected = attend(single, shape, all, sequences);
      single.close();
      const error = maxError(expected, reference(shape, all, sequences));
      expect(error).toBeLessThan(toleranceOf(device, shape, all, sequences));
      for (const threads of [2, 4, 7]) {
        const other = openDevice(threads, isa);
        expect(maxError(attend(other, shape, all, sequences), expected)).toBe(0);
        other.close();
      }
    });

    test('a value that is no number reaches only its element of the queries that see its token', () => {
      for (const [dtype, value] of [
        ['bfloat16', Number.POSITIVE_INFINITY],
        ['fp8_e4m3', Number.NaN],
      ] as const) {
        const shape: Shape = { heads: 4, kvHeads: 2, headDim: 40, blockSize: 16, dtype };
        for (const [length, window] of [
          [9, 0],
          [150, 0],
          [150, 20],
        ] as const) {
          const clean = contents(shape, length, 71);
          const bad = length - 4;
          const element = 33;
          const v = Float32Array.from(clean.v);
          v[bad * shape.kvHeads * shape.headDim + element] = value;
          for (const queries of [length, 6, 1]) {
            const sequences = [{ length, queries }];
            const expected = attend(device, { ...shape, window }, [clean], sequences);
            const actual = attend(device, { ...shape, window }, [{ ...clean, v }], sequences);
            const row = shape.heads * shape.headDim;
            // The first KV head is that of the first two heads.
            const reached = expected.map((_, i) => {
              const [position, head, d] = [length - queries + Math.floor(i / row), Math.floor((i % row) / 40), i % 40];
              return position >= bad && head < 2 && d === element ? 1 : 0;
            });
            expect(actual.map((x) => (Number.isFinite(x) ? 0 : 1))).toEqual(reached);
            expect(actual.map((x, i) => (reached[i] ? 0 : x))).toEqual(expected.map((x, i) => (reached[i] ? 0 : x)));
          }
        }
      }
    });

    test('a key that is no number counts for nothing', () => {
      for (const dtype of ['float32', 'bfloat16', 'fp8_e4m3'] as const) {
        const shape: Shape = { ...BASE, headDim: 40, dtype };
        const [length, bad] = [100, 61];
        const row = shape.kvHeads * shape.headDim;
        const clean = contents(shape, length, 73);
        const k = Float32Array.from(clean.k);
        for (let head = 0; head < shape.kvHeads; head++) k[bad * row + head * shape.headDim + 38] = Number.NaN;
        // Without its token there are the same keys for the queries behind it.
        const without = (x: Float32Array, width: number) =>
          Float32Array.from([...x.subarray(0, bad * width), ...x.subarray((bad + 1) * width)]);
        const others: Contents = {
          q: without(clean.q, shape.heads * shape.headDim),
          k: without(clean.k, row),
          v: without(clean.v, row),
        };
        for (const queries of [length - bad - 1, 2, 1]) {
          const sequences = [{ length: length - 1, queries }];
          const expected = reference(shape, [others], sequences);
          const actual = attend(device, shape, [{ ...clean, k }], [{ length, queries }]);
          const tolerance = toleranceOf(device, shape, [others], sequences);
          expect(maxError(actual, expected)).toBeLessThan(tolerance);
        }
      }
    });

    test('an fp8 cache rounds every number as OCP E4M3 says', () => {
      // All magnitudes, what lies between them, beyond both ends, and no number.
      const exact = Array.from({ length: 127 }, (_, i) =>
        i < 8 ? i * 2 ** -9 : (1 + (i % 8) / 8) * 2 ** (Math.floor(i / 8) - 7),
      );
      const between = exact.slice(1).flatMap((x, i) => [(x + exact[i]!) / 2, 0.7 * x + 0.3 * exact[i]!]);
      const magnitudes = [...exact, ...between, 464, 1e9, Number.POSITIVE_INFINITY, 1e-30];
      const numbers = [...magnitudes, ...magnitudes.map((x) => -x), Number.NaN];
      const expected = [...rounded(numbers.slice(0, -1), 'fp8_e4m3'), Number.NaN];
      // A token that sees itself alone gives its value.
      for (const headDim of [16, 32, 64, 192]) {
        const shape: Shape = { heads: 1, kvHeads: 1, headDim, blockSize: 16, dtype: 'fp8_e4m3' };
        for (let i = 0; i < numbers.length; i += headDim) {
          const v = new Float32Array(headDim);
          v.set(numbers.slice(i, i + headDim));
          const token = { q: new Float32Array(headDim), k: new Float32Array(headDim), v };
          const out = attend(device, shape, [token], [{ length: 1, queries: 1 }]);
          // + 0: a sum of nothing but -0 is 0 for some instructions only.
          const count = Math.min(headDim, numbers.length - i);
          expect([...out.subarray(0, count)].map((x) => x + 0)).toEqual(
            expected.slice(i, i + headDim).map((x) => x + 0),
          );
        }
      }
    });

    test('large scores neither overflow nor vanish', () => {
      const shape = { ...BASE };
      const content = contents(shape, 100, 3);
      for (let i = 0; i < content.q.length; i++) content.q[i]! *= 500;
      const sequences = [{ length: 100, queries: 100 }];
      expect(
        maxError(attend(device, shape, [content], sequences), reference(shape, [content], sequences)),
      ).toBeLessThan(1e-3);
    });

    test('tokens of a prompt are written as they are one at a time, wherever their runs begin and end', () => {
      const [kvHeads, numBlocks] = [8, 24];
      for (const dtype of CACHE_DTYPES) {
        for (const [headDim, blockSize] of [
          [130, 16],
          [20, 32],
          [16, 5],
        ] as const) {
          const row = kvHeads * headDim;
          const numSlots = numBlocks * blockSize;
          // Behind one another from the middle of a block on, with a hole, a jump and a step back.
          const slots = Array.from({ length: numSlots - 20 }, (_, i) => (i % 61 === 40 ? -1 : i + (i < 90 ? 13 : 15)));
          [slots[50], slots[51]] = [slots[51]!, slots[50]!];
          const keys = floats(device, randomFloats(slots.length * row, 1));
          const values = floats(device, randomFloats(slots.length * row, 2));
          const slotMapping = ints(device, slots);
          const bytes = numBlocks * device.kvBlockBytes(kvHeads, headDim, blockSize, dtype);
          const [together, single] = [buffer(device, bytes), buffer(device, bytes)];
          const write = (cache: number, first: number, count: number) =>
            device.ops.reshape_and_cache(
              keys.ptr + first * row * 4,
              values.ptr + first * row * 4,
              row,
              slotMapping.ptr + first * 4,
              cache,
              DTYPE_CODES[dtype],
              count,
              kvHeads,
              headDim,
              blockSize,
            );
          write(together.ptr, 0, slots.length);
          slots.forEach((_, token) => {
            write(single.ptr, token, 1);
          });
          finish(device);
          expect(single.i32.some((value) => value !== 0)).toBe(true);
          expect(Buffer.from(together.u16.buffer).equals(Buffer.from(single.u16.buffer))).toBe(true);
        }
      }
    });

    test('a token alone is written to the cache as in a batch, by any number of threads', () => {
      const [kvHeads, headDim, blockSize] = [7, 16, 16];
      const [tokens, row] = [5, kvHeads * headDim];
      const [key, value] = [randomFloats(tokens * row, 1), randomFloats(tokens * row, 2)];
      const written = (threads: number, together: number) => {
        const other = openDevice(threads, isa);
        const cache = buffer(other, other.kvBlockBytes(kvHeads, headDim, blockSize, 'float32'));
        const [keys, values] = [floats(other, key).ptr, floats(other, value).ptr];
        const slots = ints(other, [3, 0, 15, 7, 8]).ptr;
        for (let first = 0; first < tokens; first += together) {
          const at = first * row * 4;
          const shape = [together, kvHeads, headDim, blockSize] as const;
          other.ops.reshape_and_cache(
            keys + at,
            values + at,
            row,
            slots + first * 4,
            cache.ptr,
            DTYPE_CODES.float32,
            ...shape,
          );
        }
        finish(other);
        const result = cache.f32.slice();
        other.close();
        return result;
      };
      const expected = written(1, tokens);
      expect(expected.filter((element) => element !== 0).length).toBe(2 * tokens * row);
      for (const threads of [1, 2, 4, 9]) expect(written(threads, 1)).toEqual(expected);
    });

    test('negative slots are skipped and an empty batch does nothing', () => {
      const [kvHeads, headDim, blockSize] = [1, 16, 16];
      const cache = buffer(device, device.kvBlockBytes(kvHeads, headDim, blockSize, 'float32'));
      const rows = floats(device, randomFloats(32, 1));
      device.ops.reshape_and_cache(
        rows.ptr,
        rows.ptr,
        16,
        ints(device, [-1, -1]).ptr,
        cache.ptr,
        0,
        2,
        kvHeads,
        headDim,
        blockSize,
      );
      device.ops.reshape_and_cache(rows.ptr, rows.ptr, 16, 0, cache.ptr, 0, 0, kvHeads, headDim, blockSize);
      device.ops.paged_attention(0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 1, 16, 16, 1, 0, 0, 0, 0, 16);
      finish(device);
      expect(cache.f32.every((value) => value === 0)).toBe(true);
    });
  });
}
