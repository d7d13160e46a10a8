import { afterAll, describe, expect, test } from 'bun:test';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { DTYPE_CODES, type FloatDType } from '../../src/device/dtype.ts';
import { availableIsas, FLOAT_DTYPES, finish, floats, ints, maxError, openDevice, randomFloats } from './harness.ts';
import { type LoraProblem, loraBlocks, loraProblem, loraReference } from './lora-reference.ts';

const ISAS = availableIsas();
const devices = new Map(
  ISAS.flatMap((isa) => [1, 3].map((threads) => [`${isa} ${threads}`, openDevice(threads, isa)])),
);
afterAll(() => {
  for (const device of devices.values()) device.close();
});

const TOLERANCE: Record<FloatDType, number> = { float32: 1e-5, bfloat16: 1e-5, float16: 1e-5 };

/** x and out of the whole batch; rows of no group keep what is in out. */
function run(device: CpuDevice, problem: LoraProblem, x: Float32Array, out: Float32Array, dtype: FloatDType) {
  const { ldX, ldOut, columns, groups, k } = problem;
  const n = columns.reduce((sum, count) => sum + count, 0);
  const offsets = [0];
  for (const count of columns) offsets.push(offsets.at(-1)! + count);
  const starts = [0];
  for (const { rows } of groups) starts.push(starts.at(-1)! + rows.length);
  const target = floats(device, out);
  device.ops.add_lora(
    floats(device, x).ptr,
    ldX,
    ints(
      device,
      groups.flatMap(({ rows }) => rows),
    ).ptr,
    ints(device, starts).ptr,
    ints(
      device,
      groups.map(({ slot }) => slot),
    ).ptr,
    starts.at(-1)!,
    groups.length,
    loraBlocks(device, problem, dtype),
    DTYPE_CODES[dtype],
    ints(device, offsets).ptr,
    columns.length,
    Math.max(...problem.adapters.map((adapter) => adapter?.rank ?? 1)),
    target.ptr,
    ldOut,
    n,
    k,
  );
  finish(device);
  return target.f32.slice(0, out.length);
}

const SHAPES: [rows: number, k: number, columns: number[], ranks: (number | null)[]][] = [
  [2, 1, [1], [1]],
  [1, 7, [3], [2]],
  [5, 33, [9, 2, 5], [3, null, 1]],
  [40, 64, [31, 17], [8, 16]],
  [13, 130, [70], [5, 64, 7]],
  [130, 48, [40, 8, 8], [8, 4, 16, 1]],
  // Few rows and large matrices: the threads share columns.
  [3, 1500, [700, 90], [33, 17]],
  [7, 1030, [1000, 129, 64], [16, 5]],
];

describe('add_lora', () => {
  for (const [name, device] of devices) {
    for (const dtype of FLOAT_DTYPES) {
      test(`as the reference: ${name} threads, ${dtype}`, () => {
        for (const [rows, k, columns, ranks] of SHAPES) {
          const problem = loraProblem(Math.max(rows, ranks.length + 1), k, columns, ranks);
          const numRows = Math.max(rows, ranks.length + 1);
          const x = randomFloats(numRows * problem.ldX, 1);
          const out = randomFloats(numRows * problem.ldOut, 2);
          const expected = loraReference(problem, x, out, dtype);
          const actual = run(device, problem, x, out, dtype);
          const size = Math.max(1, ...expected.map(Math.abs));
          expect(maxError(actual, expected) / size, `${rows} ${k} ${columns}`).toBeLessThan(TOLERANCE[dtype]);
        }
      });
    }
  }

  test('a row has the same bits in every batch, with every number of threads', () => {
    for (const [rows, k, columns, ranks] of SHAPES) {
      const numRows = Math.max(rows, ranks.length + 1);
      const problem = loraProblem(numRows, k, columns, ranks);
      const x = randomFloats(numRows * problem.ldX, 1);
      const out = randomFloats(numRows * problem.ldOut, 2);
      for (const isa of ISAS) {
        const whole = run(devices.get(`${isa} 1`)!, problem, x, out, 'bfloat16');
        expect(run(devices.get(`${isa} 3`)!, problem, x, out, 'bfloat16')).toEqual(whole);
        for (const { slot, rows: own } of problem.groups) {
          for (const row of own.slice(0, 5)) {
            const alone = { ...problem, groups: [{ slot, rows: [row] }] };
            const result = run(devices.get(`${isa} 3`)!, alone, x, out, 'bfloat16');
            const [begin, end] = [row * problem.ldOut, (row + 1) * problem.ldOut];
            expect(result.subarray(begin, end)).toEqual(whole.subarray(begin, end));
          }
        }
      }
    }
  });

  test('rows of nobody, and what lies between rows, stay as they are', () => {
    const problem = loraProblem(9, 20, [11], [4]);
    const out = randomFloats(9 * problem.ldOut, 2);
    const result = run(devices.get(`${ISAS[0]} 3`)!, problem, randomFloats(9 * problem.ldX, 1), out, 'float32');
    const own = new Set(problem.groups.flatMap(({ rows }) => rows));
    for (let i = 0; i < out.length; i++) {
      const isOwn = own.has(Math.floor(i / problem.ldOut)) && i % problem.ldOut < 11;
      expect(result[i] === out[i]).toBe(!isOwn);
    }
  });

  test('arguments that can not be right are refused', () => {
    const device = devices.get(`${ISAS[0]} 1`)!;
    const { ptr } = floats(device, [1, 2, 3, 4]);
    const args = [ptr, 2, ptr, ptr, ptr, 1, 1, ptr, 0, ptr, 1, 2, ptr, 2, 2, 2];
    const withArg = (index: number, value: number) => args.map((arg, i) => (i === index ? value : arg));
    const cases: [number, number, string][] = [
      [1, 1, 'a shape'],
      [5, -1, 'a shape'],
      [8, 9, 'a data type'],
      [10, 16, 'a shape'],
      [11, 0, 'a shape'],
      [0, 0, 'a pointer is null'],
      [7, 0, 'a pointer is null'],
    ];
    for (const [index, value, text] of cases) {
      expect(() => device.ops.add_lora(...withArg(index, value))).toThrow(text);
    }
    device.ops.add_lora(...withArg(5, 0));
  });
});
