import type { QuantizableSource } from '../device/device.ts';
import { FP8_GROUP } from '../device/quantization-scheme.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import { readVector } from './host-vector.ts';
import { type LinearShard, shardMatrix } from './linear-method.ts';

/** Where checkpoints have the factors of their 8-bit floats. Both multiply, whatever the second is called. */
const SCALE_NAMES = ['weight_scale', 'weight_scale_inv'];

/** The shard's part of `${prefix}.weight` in the checkpoint: 8-bit floats with their scales, or what {@link shardMatrix} gives. */
export function quantizableMatrix(weights: WeightSource, shard: LinearShard): QuantizableSource {
  const { prefix, shape, firstRow, numRows: rows, firstCol, numCols: cols } = shard;
  const view = weights.getFp8?.(`${prefix}.weight`, shape) ?? null;
  if (view === null) return shardMatrix(weights, shard);
  const ld = shape[1];
  return {
    ptr: view.ptr + firstRow * ld + firstCol,
    dtype: 'fp8_e4m3',
    rows,
    cols,
    ld,
    scales: scalesOf(weights, shard),
  };
}

/** Of each row of the shard the scales of its groups of FP8_GROUP columns. */
function scalesOf(weights: WeightSource, shard: LinearShard): Float32Array {
  const { prefix, shape, firstRow, numRows, firstCol, numCols } = shard;
  if (firstCol % FP8_GROUP !== 0) {
    throw new Error(
      `${prefix}.weight: a part from column ${firstCol} on can't be taken; 8-bit floats have a scale for ${FP8_GROUP}.`,
    );
  }
  const name = SCALE_NAMES.map((each) => `${prefix}.${each}`).find((each) => weights.has(each));
  if (name === undefined) {
    throw new Error(
      `${prefix}.weight has 8-bit floats, but there is neither ${prefix}.${SCALE_NAMES.join(` nor ${prefix}.`)}.`,
    );
  }
  const tensor = weights.get(name);
  const [rowsOfScale, columnsOfScale] = layoutOf(tensor, shape);
  const values = readVector(tensor, 0, rowsOfScale.count * columnsOfScale.count);
  const groups = Math.ceil(numCols / FP8_GROUP);
  return Float32Array.from({ length: numRows * groups }, (_, i) => {
    const row = Math.floor((firstRow + Math.floor(i / groups)) / rowsOfScale.size);
    const column = Math.floor((firstCol + (i % groups) * FP8_GROUP) / columnsOfScale.size);
    return values[row * columnsOfScale.count + column]!;
  });
}

/** How many scales there are along an axis, and how many rows or columns share one. */
interface ScaleAxis {
  count: number;
  size: number;
}

/** One scale for the whole matrix, for each row, for blocks of FP8_GROUP rows and columns, or for each row's groups. */
function layoutOf({ name, shape }: TensorView, matrix: readonly [number, number]): [ScaleAxis, ScaleAxis] {
  const given = [shape[0] ?? 1, shape[1] ?? 1] as const;
  const blocks = matrix.map((size) => Math.ceil(size / FP8_GROUP)) as [number, number];
  const axis = (i: 0 | 1): ScaleAxis | null => {
    const count = given[i];
    if (count === 1) return { count, size: matrix[i] };
    if (i === 0 && count === matrix[0]) return { count, size: 1 };
    return count === blocks[i] ? { count, size: FP8_GROUP } : null;
  };
  const [rows, columns] = [axis(0), axis(1)];
  if (shape.length > 2 || rows === null || columns === null) {
    throw new Error(
      `${name} has shape [${shape.join(', ')}]; for a weight [${matrix.join(', ')}] it may have one scale, [${matrix[0]}, 1], or [${blocks.join(', ')}] for blocks of ${FP8_GROUP} x ${FP8_GROUP}.`,
    );
  }
  return [rows, columns];
}
