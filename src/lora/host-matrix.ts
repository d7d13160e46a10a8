import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { dtypeBytes, type FloatDType } from '../device/dtype.ts';
import type { TensorView } from '../loader/weight-source.ts';

/** Elements of a matrix as bit patterns of a floating point type, rows `ld` elements apart. */
export interface HostMatrix {
  elements: Uint16Array | Uint32Array;
  rows: number;
  cols: number;
  ld: number;
}

/** A part of a tensor [rows, cols], in another type where need be; one of the tensor's own type lies where the tensor does. */
export function hostMatrix(
  tensor: TensorView,
  dtype: FloatDType,
  { firstRow = 0, numRows = tensor.shape[0]!, firstCol = 0, numCols = tensor.shape[1]! } = {},
): HostMatrix {
  const ld = tensor.shape[1]!;
  const at = tensor.ptr + (firstRow * ld + firstCol) * dtypeBytes(tensor.dtype);
  const length = numRows === 0 ? 0 : (numRows - 1) * ld + numCols;
  const bytes = toArrayBuffer(at as Pointer, 0, length * dtypeBytes(tensor.dtype));
  return { elements: convert(bytes, tensor.dtype, dtype), rows: numRows, cols: numCols, ld };
}

function convert(bytes: ArrayBuffer, from: FloatDType, to: FloatDType): Uint16Array | Uint32Array {
  if (from === to) return from === 'float32' ? new Uint32Array(bytes) : new Uint16Array(bytes);
  const values = readFloats(bytes, from);
  const bits = new Uint32Array(values.buffer);
  if (to === 'float32') return bits;
  if (to === 'float16') return new Uint16Array(new Float16Array(values).buffer);
  // Loops: Uint16Array.from with a function takes ten times as long.
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) halves[i] = roundToBfloat16(bits[i]!);
  return halves;
}

function readFloats(bytes: ArrayBuffer, dtype: FloatDType): Float32Array<ArrayBuffer> {
  if (dtype === 'float32') return new Float32Array(bytes).slice();
  if (dtype === 'float16') return Float32Array.from(new Float16Array(bytes));
  const halves = new Uint16Array(bytes);
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** Nearest bfloat16 of float32 bits, ties to even; NaN stays NaN. */
function roundToBfloat16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
