import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { DTYPE_CODES, type FloatDType } from '../../src/device/dtype.ts';
import { type Routing, routeToken } from '../models/moe-reference-ops.ts';
import {
  availableIsas,
  buffer,
  FLOAT_DTYPES,
  finish,
  floats,
  ints,
  maxError,
  openDevice,
  randomFloats,
  randomSource,
} from './harness.ts';

const ISAS = availableIsas();
const devices = new Map(ISAS.map((isa) => [isa, openDevice(2, isa)]));
const device = devices.get(ISAS.at(-1)!)!;
afterAll(() => {
  for (const opened of devices.values()) opened.close();
});

const sameBits = (a: Float32Array, b: Float32Array) =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

describe('moe_route', () => {
  const plain = { numGroups: 1, topkGroups: 1, renormalize: false, scale: 1 };

  function route(logits: Float32Array, bias: Float32Array | null, routing: Routing) {
    const { numExperts, topK } = routing;
    const tokens = logits.length / numExperts;
    const ids = ints(device, new Array(tokens * topK).fill(-1));
    const weights = floats(device, new Array(tokens * topK).fill(Number.NaN));
    device.ops.moe_route(
      floats(device, logits).ptr,
      bias ? floats(device, bias).ptr : 0,
      ids.ptr,
      weights.ptr,
      tokens,
      numExperts,
      topK,
      routing.scoring === 'sigmoid' ? 1 : 0,
      routing.numGroups,
      routing.topkGroups,
      routing.renormalize ? 1 : 0,
      routing.scale,
    );
    finish(device);
    return { ids: [...ids.i32.subarray(0, tokens * topK)], weights: weights.f32.slice(0, tokens * topK) };
  }

  const CASES: Routing[] = [
    { ...plain, numExperts: 1, topK: 1, scoring: 'softmax' },
    { ...plain, numExperts: 4, topK: 2, scoring: 'softmax', renormalize: true },
    { ...plain, numExperts: 7, topK: 7, scoring: 'softmax' },
    { ...plain, numExperts: 128, topK: 8, scoring: 'softmax', renormalize: true },
    { ...plain, numExperts: 9, topK: 4, scoring: 'sigmoid', scale: 2.5 },
    { numExperts: 8, topK: 3, scoring: 'sigmoid', numGroups: 4, topkGroups: 2, renormalize: true, scale: 1.5 },
    { numExperts: 256, topK: 8, scoring: 'sigmoid', numGroups: 8, topkGroups: 4, renormalize: true, scale: 2.5 },
    { numExperts: 6, topK: 3, scoring: 'softmax', numGroups: 6, topkGroups: 3, renormalize: false, scale: 1 },
  ];

  for (const routing of CASES) {
    test(`as the reference: ${JSON.stringify(routing)}`, () => {
      const { numExperts, topK } = routing;
      for (const tokens of [1, 16, 37]) {
        const logits = randomFloats(tokens * numExperts, tokens).map((value) => value * 6);
        for (const bias of [null, randomFloats(numExperts, 5)]) {
          const actual = route(logits, bias, routing);
          for (let token = 0; token < tokens; token++) {
            const own = Array.from(logits.subarray(token * numExperts, (token + 1) * numExperts));
            const expected = routeToken(own, bias && Array.from(bias), routing);
            expect(actual.ids.slice(token * topK, (token + 1) * topK)).toEqual(expected.ids);
            const weights = actual.weights.subarray(token * topK, (token + 1) * topK);
            expect(maxError(weights, expected.weights)).toBeLessThan(1e-5);
          }
        }
      }
    });
  }

  test('equal scores go to the lower ids, a score that is not a number to the end', () => {
    const routing: Routing = { ...plain, numExperts: 5, topK: 5, scoring: 'sigmoid' };
    expect(route(new Float32Array(5), null, routing).ids).toEqual([0, 1, 2, 3, 4]);
    expect(route(new Float32Array([1, Number.NaN, 2, -50, 1]), null, routing).ids).toEqual([2, 0, 4, 3, 1]);
    const softmax: Routing = { ...routing, scoring: 'softmax', topK: 2 };
    const hopeless = route(new Float32Array(5).fill(Number.NaN), null, softmax);
    expect(hopeless.ids).toEqual([0, 1]);
    expect([...hopeless.weights]).toEqual([Number.NaN, Number.NaN]);
  });

  test('scores that all vanish give weights of 0', () => {
    const routing: Routing = { ...plain, numExperts: 3, topK: 2, scoring: 'sigmoid', renormalize: true };
    expect([...route(new Float32Array(3).fill(-200), null, routing).weights]).toEqual([0, 0]);
  });

  test('refuses more experts than there are to choose from', () => {
    const { ptr } = floats(device, new Float32Array(64));
    const call = (topK: number, groups: number, topkGroups: number) => () =>
      device.ops.moe_route(ptr, 0, ptr, ptr, 1, 8, topK, 0, groups, topkGroups, 0, 1);
    for (const refused of [call(9, 1, 1), call(5, 4, 2), call(1, 3, 1), call(1, 4, 5), call(0, 1, 1)]) {
      expect(refused).toThrow('shape');
    }
  });
});

describe('moe_permute and moe_combine', () => {
  const random = (tokens: number, topK: number, experts: number) => {
    const next = randomSource(tokens + experts);
    return Array.from({ length: tokens * topK }, () => Math.floor(((next() + 1) / 2) * experts));
  };
  const CASES: [name: string, ids: number[], topK: number, experts: number][] = [
    ['one token', [3, 0], 2, 5],
    ['all tokens to one expert', new Array(40).fill(2), 1, 4],
    ['every expert for every token', Array.from({ length: 60 }, (_, i) => 5 - (i % 6)), 6, 6],
    ['one expert', new Array(9).fill(0), 1, 1],
    ['many tokens', random(700, 4, 60), 4, 60],
  ];

  for (const [name, ids, topK, experts] of CASES) {
    test(name, () => {
      const tokens = ids.length / topK;
      const offsets = ints(device, new Array(experts + 1).fill(-1));
      const rowOfPair = ints(device, new Array(ids.length).fill(-1));
      const tokenOfRow = ints(device, new Array(ids.length).fill(-1));
      device.ops.moe_permute(ints(device, ids).ptr, offsets.ptr, rowOfPair.ptr, tokenOfRow.ptr, tokens, topK, experts);
      finish(device);
      const order = ids.map((_, pair) => pair).sort((a, b) => ids[a]! - ids[b]! || a - b);
      expect([...tokenOfRow.i32]).toEqual(order.map((pair) => Math.floor(pair / topK)));
      expect(order.map((pair) => rowOfPair.i32[pair]!)).toEqual(order.map((_, row) => row));
      const counts = Array.from({ length: experts + 1 }, (_, expert) => ids.filter((id) => id < expert).length);
      expect([...offsets.i32.subarray(0, experts + 1)]).toEqual(counts);

      for (const n of [1, 37, 5000]) {
        const rows = randomFloats(ids.length * n, n);
        const weights = randomFloats(ids.length, 3);
        const out = floats(device, new Float32Array(tokens * n).fill(Number.NaN));
        device.ops.moe_combine(
          floats(device, rows).ptr,
          rowOfPair.ptr,
          floats(device, weights).ptr,
          out.ptr,
          tokens,
          topK,
          n,
        );
        finish(device);
        const expected = new Float64Array(tokens * n);
        ids.forEach((_, pair) => {
          const row = rowOfPair.i32[pair]!;
          for (let i = 0; i < n; i++) expected[Math.floor(pair / topK) * n + i]! += weights[pair]! * rows[row * n + i]!;
        });
        expect(maxError(out.f32, expected)).toBeLessThan(1e-5);
      }
    });
  }

  test('no tokens: no rows for any expert', () => {
    const offsets = ints(device, [7, 7, 7]);
    device.ops.moe_permute(offsets.ptr, offsets.ptr, offsets.ptr, offsets.ptr, 0, 2, 2);
    finish(device);
    expect([...offsets.i32]).toEqual([0, 0, 0]);
  });
});

/** Rows of each expert. */
const LOADS: readonly number[][] = [
  [1],
  [0, 0, 1, 0],
  [205, 0, 0],
  [0, 0, 97],
  [3, 1, 0, 13, 24, 2, 0, 6],
  new Array(40).fill(1),
];
const SHAPES: readonly [n: number, k: number][] = [
  [1, 1],
  [33, 7],
  [70, 1031],
];

for (const [isa, opened] of devices) {
  describe(`grouped_linear, ${isa}`, () => {
    for (const dtype of FLOAT_DTYPES) {
      test(`${dtype} gives each row what linear gives it with its expert's weight, to the bit`, () => {
        for (const [n, k] of SHAPES) {
          for (const load of LOADS) expectSameAsLinear(opened, dtype, load, n, k);
        }
      });
    }

    test('rows may be apart, and nothing else is written', () => {
      const [n, k, ldX, ldOut] = [35, 20, 23, 40];
      const weight = packExpert(opened, randomFloats(n * k, 1), n, k, 'float32');
      const x = randomFloats(9 * ldX, 2);
      const out = floats(opened, new Float32Array(9 * ldOut).fill(7));
      const pointers = addressArray(opened, [weight, weight]);
      const offsets = ints(opened, [0, 4, 8]);
      const xPtr = floats(opened, x).ptr;
      opened.ops.grouped_linear(xPtr, ldX, pointers, 0, 0, offsets.ptr, 2, out.ptr, ldOut, 9, n, k);
      finish(opened);
      const dense = floats(opened, new Float32Array(8 * n));
      opened.ops.linear(xPtr, ldX, weight, 0, 0, dense.ptr, n, 8, n, k);
      finish(opened);
      for (let row = 0; row < 9; row++) {
        const written = out.f32.subarray(row * ldOut, row * ldOut + n);
        if (row < 8) expect(sameBits(written, dense.f32.subarray(row * n, (row + 1) * n))).toBe(true);
        else expect([...written]).toEqual(new Array(n).fill(7));
        expect([...out.f32.subarray(row * ldOut + n, (row + 1) * ldOut)]).toEqual([7, 7, 7, 7, 7]);
      }
    });
  });
}

function packExpert(opened: CpuDevice, w: Float32Array, n: number, k: number, dtype: FloatDType): number {
  const source = { ptr: floats(opened, w).ptr, dtype: 'float32', rows: n, cols: k, ld: k } as const;
  return opened.packLinear([source], dtype, 'expert').ptr;
}

function addressArray(opened: CpuDevice, addresses: readonly number[]): number {
  const staging = opened.staging(addresses.length * 8, 'addresses');
  new BigInt64Array(staging.host).set(addresses.map(BigInt));
  return staging.ptr;
}

function expectSameAsLinear(opened: CpuDevice, dtype: FloatDType, load: readonly number[], n: number, k: number): void {
  const rows = load.reduce((sum, count) => sum + count, 0);
  const starts = load.map((_, expert) => load.slice(0, expert).reduce((sum, count) => sum + count, 0));
  const weights = load.map((_, expert) => packExpert(opened, randomFloats(n * k, expert), n, k, dtype));
  const biases = floats(opened, randomFloats(load.length * n, 8));
  const x = floats(opened, randomFloats(rows * k, 9));
  const out = floats(opened, new Float32Array(rows * n).fill(Number.NaN));
  const expected = floats(opened, new Float32Array(rows * n));
  const offsets = ints(opened, [...starts, rows]);
  const code = DTYPE_CODES[dtype];
  const pointers = addressArray(opened, weights);
  opened.ops.grouped_linear(x.ptr, k, pointers, code, biases.ptr, offsets.ptr, load.length, out.ptr, n, rows, n, k);
  load.forEach((count, expert) => {
    if (count === 0) return;
    const start = starts[expert]!;
    const bias = biases.ptr + expert * n * 4;
    opened.ops.linear(
      x.ptr + start * k * 4,
      k,
      weights[expert]!,
      code,
      bias,
      expected.ptr + start * n * 4,
      n,
      count,
      n,
      k,
    );
  });
  finish(opened);
  expect(sameBits(out.f32, expected.f32)).toBe(true);
}

test('grouped_linear equals the plain product', () => {
  const [n, k] = [5, 12];
  const values = [randomFloats(n * k, 1), randomFloats(n * k, 2)];
  const pointers = addressArray(
    device,
    values.map((w) => packExpert(device, w, n, k, 'float32')),
  );
  const x = randomFloats(3 * k, 3);
  const out = floats(device, new Float32Array(3 * n));
  device.ops.grouped_linear(
    floats(device, x).ptr,
    k,
    pointers,
    DTYPE_CODES.float32,
    0,
    ints(device, [0, 1, 3]).ptr,
    2,
    out.ptr,
    n,
    3,
    n,
    k,
  );
  finish(device);
  const expected = [0, 1, 1].flatMap((expert, row) => {
    const w = values[expert]!;
    return Array.from({ length: n }, (_, j) =>
      Array.from({ length: k }, (_, i) => x[row * k + i]! * w[j * k + i]!).reduce((sum, value) => sum + value, 0),
    );
  });
  expect(maxError(out.f32, expected)).toBeLessThan(1e-5);
});

for (const [isa, opened] of devices) {
  test(`swigluoai_and_mul, ${isa}: beyond the limits and for every rest of a vector`, () => {
    for (const [rows, n] of [
      [1, 1],
      [3, 17],
      [5, 64],
      [2, 9000],
    ] as const) {
      const gateUp = randomFloats(rows * 2 * n, n).map((value) => value * 20);
      const out = floats(opened, new Float32Array(rows * n).fill(Number.NaN));
      opened.ops.swigluoai_and_mul(floats(opened, gateUp).ptr, out.ptr, rows, n, 1.702, 7);
      finish(opened);
      const expected = Float64Array.from({ length: rows * n }, (_, i) => {
        const at = Math.floor(i / n) * 2 * n + (i % n);
        const gate = Math.min(gateUp[at]!, 7);
        const up = Math.max(-7, Math.min(gateUp[at + n]!, 7));
        return (gate / (1 + Math.exp(-1.702 * gate))) * (up + 1);
      });
      expect(maxError(out.f32, expected)).toBeLessThan(1e-4);
    }
  });
}

describe('copy_heads', () => {
  test('takes apart, broadcasts and pads', () => {
    const x = Float32Array.from({ length: 14 }, (_, i) => i + 1);
    const out = floats(device, new Float32Array(20).fill(-1));
    const xPtr = floats(device, x).ptr;
    // Two tokens of two heads of three, of which two go to heads of four, zero behind them but for the last element.
    device.ops.copy_heads(xPtr, 7, 3, out.ptr, 10, 4, 2, 2, 2, 3);
    finish(device);
    expect([...out.f32]).toEqual([1, 2, 0, -1, 4, 5, 0, -1, -1, -1, 8, 9, 0, -1, 11, 12, 0, -1, -1, -1]);
    device.ops.copy_heads(xPtr, 1, 0, out.ptr, 4, 2, 3, 2, 1, 1);
    finish(device);
    expect([...out.f32.subarray(0, 12)]).toEqual([1, 2, 1, -1, 2, 5, 2, -1, 3, -1, 3, 9]);
  });

  test('refuses heads that overlap or reach beyond their row', () => {
    const { ptr } = buffer(device, 400);
    expect(() => device.ops.copy_heads(ptr, 8, 4, ptr, 8, 3, 1, 2, 4, 4)).toThrow('shape');
    expect(() => device.ops.copy_heads(ptr, 7, 4, ptr, 8, 4, 1, 2, 4, 4)).toThrow('shape');
    expect(() => device.ops.copy_heads(ptr, 8, 4, ptr, 7, 4, 1, 2, 4, 4)).toThrow('shape');
    expect(() => device.ops.copy_heads(ptr, 8, 4, ptr, 8, 4, 1, 2, 4, 3)).toThrow('shape');
  });
});
