import type { FloatDType } from '../device/dtype.ts';
import type { HostMatrix } from './host-matrix.ts';

/** Bytes of LoraHeader in cpu/lora.h. */
const HEADER_BYTES = 64;
const SCALES_AT = 4;
const ALIGNMENT = 64;
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

/**
 * An adapter's weights for one layer as `add_lora` takes them (cpu/lora.h): a slice without weights, or of a lesser rank than the others, is filled up
 * with zeros.
 *
 * @param slices one entry a slice; null: the adapter leaves it as it is
 */
export function packBlock(slices: readonly (SliceWeights | null)[], { inFeatures, columns, dtype }: BlockShape) {
  const rank = slices.reduce((most, slice) => Math.max(most, slice?.rank ?? 0), 0);
  const Elements = dtype === 'float32' ? Uint32Array : Uint16Array;
  const aLength = slices.length * rank * inFeatures;
  const bAt = HEADER_BYTES + Math.ceil((aLength * Elements.BYTES_PER_ELEMENT) / ALIGNMENT) * ALIGNMENT;
  const bLength = rank * columns.reduce((sum, count) => sum + count, 0);
  const block = new ArrayBuffer(bAt + bLength * Elements.BYTES_PER_ELEMENT);
  new Int32Array(block, 0, 1)[0] = rank;
  const scales = new Float32Array(block, SCALES_AT, MAX_SLICES);
  const a = new Elements(block, HEADER_BYTES, aLength);
  const b = new Elements(block, bAt, bLength);
  let column = 0;
  slices.forEach((slice, s) => {
    if (slice !== null) {
      scales[s] = slice.scale;
      copyRows(slice.a, a.subarray(s * rank * inFeatures));
      transposeRows(slice.b, slice.rank, b.subarray(rank * column));
    }
    column += columns[s]!;
  });
  return new Uint8Array(block);
}

/** Rows of a matrix, dense. */
function copyRows({ elements, rows, cols, ld }: HostMatrix, to: Uint16Array | Uint32Array): void {
  for (let row = 0; row < rows; row++) to.set(elements.subarray(row * ld, row * ld + cols), row * cols);
}

/** [rows, rank] to [rank, rows]. */
function transposeRows({ elements, rows, ld }: HostMatrix, rank: number, to: Uint16Array | Uint32Array): void {
  for (let r = 0; r < rank; r++) {
    for (let row = 0; row < rows; row++) to[r * rows + row] = elements[row * ld + r]!;
  }
}
