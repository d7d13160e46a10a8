import { type Pointer, toArrayBuffer } from 'bun:ffi';
import type { MatrixSource } from '../../src/device/device.ts';
import { DTYPE_CODES, type DType, dtypeBytes, type FloatDType } from '../../src/device/dtype.ts';

/** `count` float32 values where they lie. */
export function floats(address: number, count: number): Float32Array {
  return new Float32Array(toArrayBuffer(address as Pointer, 0, Math.max(count, 1) * 4), 0, count);
}

/** `count` int32 values where they lie. */
export function ints(address: number, count: number): Int32Array {
  return new Int32Array(toArrayBuffer(address as Pointer, 0, Math.max(count, 1) * 4), 0, count);
}

/** `count` addresses (int64) where they lie. */
export function addresses(address: number, count: number): number[] {
  return Array.from(new BigInt64Array(toArrayBuffer(address as Pointer, 0, count * 8)), Number);
}

export function dtypeOfCode(code: number): DType {
  const entry = Object.entries(DTYPE_CODES).find(([, value]) => value === code);
  if (entry === undefined) throw new Error(`no dtype has the code ${code}`);
  return entry[0] as DType;
}

/** Nearest bfloat16, ties to even. */
export function roundToBfloat16(value: number): number {
  const single = new Float32Array([value]);
  const bits = new Uint32Array(single.buffer);
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return single[0]!;
}

/** A copy rounded to what the type can hold. */
export function roundTo(values: Float32Array, dtype: DType): Float32Array {
  if (dtype === 'float32') return values.slice();
  if (dtype === 'bfloat16') return values.map(roundToBfloat16);
  if (dtype === 'float16') return values.map(Math.f16round);
  throw new Error(`the reference has no ${dtype}`);
}

/** A checkpoint matrix as dense float32. */
export function readMatrix({ ptr, dtype, rows, cols, ld }: MatrixSource): Float32Array {
  const bytes = toArrayBuffer(ptr as Pointer, 0, ((rows - 1) * ld + cols) * dtypeBytes(dtype));
  const read = reader(bytes, dtype);
  const values = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) values[row * cols + col] = read(row * ld + col);
  }
  return values;
}

function reader(bytes: ArrayBuffer, dtype: FloatDType): (index: number) => number {
  const view = new DataView(bytes);
  if (dtype === 'float32') return (index) => view.getFloat32(index * 4, true);
  if (dtype === 'float16') return (index) => view.getFloat16(index * 2, true);
  const upperHalf = new DataView(new ArrayBuffer(4));
  return (index) => {
    upperHalf.setUint32(0, view.getUint16(index * 2, true) << 16);
    return upperHalf.getFloat32(0);
  };
}
