import { expect, test } from 'bun:test';
import { quantizableMatrix } from '../../src/layers/fp8-matrix.ts';
import { MemoryWeights } from '../models/memory-weights.ts';

const [ROWS, COLS] = [300, 260];
const GROUPS = 3;

/** A checkpoint whose `proj.weight` is 8-bit floats somewhere, with scales of this shape that count up from 1. */
class Fp8Weights extends MemoryWeights {
  constructor(name: string, shape: readonly number[]) {
    super();
    const size = shape.reduce((product, length) => product * length, 1);
    this.set(
      name,
      shape,
      Float32Array.from({ length: size }, (_, i) => i + 1),
    );
  }

  getFp8(name: string): { ptr: number } | null {
    return name === 'proj.weight' ? { ptr: 4096 } : null;
  }
}

const whole = { prefix: 'proj', shape: [ROWS, COLS] as const, firstRow: 0, numRows: ROWS, firstCol: 0, numCols: COLS };

function scalesOf(shape: readonly number[], part: object = {}, name = 'proj.weight_scale') {
  const source = quantizableMatrix(new Fp8Weights(name, shape), { ...whole, ...part });
  if (source.dtype !== 'fp8_e4m3') throw new Error(source.dtype);
  const groups = Math.ceil(source.cols / 128);
  return { source, at: (row: number, group: number) => source.scales[row * groups + group] };
}

test('one scale is every group’s', () => {
  for (const shape of [[], [1], [1, 1]]) {
    const { source } = scalesOf(shape);
    expect(source.scales).toEqual(new Float32Array(ROWS * GROUPS).fill(1));
    expect(source).toMatchObject({ ptr: 4096, rows: ROWS, cols: COLS, ld: COLS });
  }
});

test('a row has its own', () => {
  for (const shape of [[ROWS], [ROWS, 1]]) {
    const { at } = scalesOf(shape);
    expect([at(0, 0), at(0, 2), at(1, 1), at(299, 2)]).toEqual([1, 1, 2, 300]);
  }
});

test('blocks of 128 x 128', () => {
  const { at } = scalesOf([3, 3], {}, 'proj.weight_scale_inv');
  expect([at(0, 0), at(127, 2), at(128, 0), at(255, 1), at(256, 0), at(299, 2)]).toEqual([1, 3, 4, 5, 7, 9]);
});

test('groups of each row', () => {
  const { at } = scalesOf([ROWS, 3]);
  expect([at(0, 0), at(0, 2), at(1, 0), at(299, 2)]).toEqual([1, 3, 4, 900]);
});

test('a part has the scales of its rows and columns', () => {
  const part = { firstRow: 120, numRows: 20, firstCol: 128, numCols: 132 };
  const { source, at } = scalesOf([3, 3], part);
  expect(source).toMatchObject({ ptr: 4096 + 120 * COLS + 128, rows: 20, cols: 132, ld: COLS });
  expect([at(7, 0), at(7, 1), at(8, 0), at(19, 1)]).toEqual([2, 3, 5, 6]);
  expect(() => scalesOf([3, 3], { firstCol: 64, numCols: 64 })).toThrow(
    "proj.weight: a part from column 64 on can't be taken",
  );
});

test('scales of another shape are told with what would be right', () => {
  for (const shape of [
    [2, 3],
    [ROWS, 4],
    [3, 3, 1],
  ]) {
    expect(() => scalesOf(shape)).toThrow(
      `proj.weight_scale has shape [${shape.join(', ')}]; for a weight [300, 260] it may have one scale, [300, 1], or [3, 3] for blocks of 128 x 128.`,
    );
  }
});

test('what is no 8-bit float is a matrix like any other', () => {
  const weights = new MemoryWeights().setRandom('proj.weight', [ROWS, COLS]);
  expect(quantizableMatrix(weights, whole)).toMatchObject({ dtype: 'float32', rows: ROWS, cols: COLS, ld: COLS });
});
