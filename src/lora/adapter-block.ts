import { dtypeBytes, type FloatDType } from '../device/dtype.ts';
import type { HostMatrix } from './host-matrix.ts';

/** Bytes of LoraHeader in cpu/lora.h. */
const HEADER_BYTES = 64;
const SCALES_AT = 4;
const ALIGNMENT = 64;
/** kLoraPanel there: columns of B that lie together. */
const PANEL_COLUMNS = 64;
/** Slices that a header has scales for. */
export const MAX_SLICES = 15;

/** What an adapter adds to one slice of a layer's output. */
export interface SliceWeights {
  rank: number;
  scale: number;
  /** [rank, inFeatures] */
  a: HostMatrix;
  /** [columns of the slice, rank] */
  b: HostMatrix;
}

export interface BlockShape {
  inFeatures: number;
  /** Output features of each slice. */
  columns: readonly number[];
  dtype: FloatDType;
}

/** Bytes of a block of that rank, and where its parts are, in bytes and elements. */
export function blockLayout(rank: number, { inFeatures, columns, dtype }: BlockShape) {
  const elementBytes = dtypeBytes(dtype);
  const aLength = columns.length * rank * inFeatures;
  const bAt = HEADER_BYTES + Math.ceil((aLength * elementBytes) / ALIGNMENT) * ALIGNMENT;
  const bLength = rank * columns.reduce((sum, count) => sum + padded(count), 0);
  return { aLength, bAt, bLength, bytes: bAt + bLength * elementBytes };
}

/**
 * An adapter's weights for one layer as `add_lora` takes them (cpu/lora.h): a slice without weights, or of a lesser rank than the others, is filled up
 * with zeros.
 *
 * @param slices one entry a slice; null: the adapter leaves it as it is
 */
export function packBlock(slices: readonly (SliceWeights | null)[], shape: BlockShape): Uint8Array {
  const { inFeatures, columns, dtype } = shape;
  const rank = slices.reduce((most, slice) => Math.max(most, slice?.rank ?? 0), 0);
  const Elements = dtype === 'float32' ? Uint32Array : Uint16Array;
  const { aLength, bAt, bLength, bytes } = blockLayout(rank, shape);
  const block = new ArrayBuffer(bytes);
  new Int32Array(block, 0, 1)[0] = rank;
  const scales = new Float32Array(block, SCALES_AT, MAX_SLICES);
  const a = new Elements(block, HEADER_BYTES, aLength);
  const b = new Elements(block, bAt, bLength);
  let column = 0;
  slices.forEach((slice, s) => {
    if (slice !== null) {
      scales[s] = slice.scale;
      copyRows(slice.a, a.subarray(s * rank * inFeatures));
      packPanels(slice.b, slice.rank, rank, b.subarray(rank * column));
    }
    column += padded(columns[s]!);
  });
  return new Uint8Array(block);
}

/** Rows of a matrix, dense. */
function copyRows({ elements, rows, cols, ld }: HostMatrix, to: Uint16Array | Uint32Array): void {
  for (let row = 0; row < rows; row++) to.set(elements.subarray(row * ld, row * ld + cols), row * cols);
}

/** [rows, rank] to [rows / PANEL_COLUMNS][blockRank][PANEL_COLUMNS]. */
function packPanels(
  { elements, rows, ld }: HostMatrix,
  rank: number,
  blockRank: number,
  to: Uint16Array | Uint32Array,
): void {
  for (let row = 0; row < rows; row++) {
    const column = row % PANEL_COLUMNS;
    const at = (row - column) * blockRank + column;
    for (let r = 0; r < rank; r++) to[at + r * PANEL_COLUMNS] = elements[row * ld + r]!;
  }
}

function padded(columns: number): number {
  return Math.ceil(columns / PANEL_COLUMNS) * PANEL_COLUMNS;
}
