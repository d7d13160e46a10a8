import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { dtypeBytes } from '../device/dtype.ts';
import type { TensorView } from '../loader/weight-source.ts';

/**
 * Elements `first` to `first + count` of a checkpoint tensor, flat, as float32. A copy: small vectors such as norm weights and biases
 * are kept in float32, whatever the checkpoint's type.
 */
export function readVector(tensor: TensorView, first: number, count: number): Float32Array {
  const bytes = dtypeBytes(tensor.dtype);
  const memory = toArrayBuffer(tensor.ptr as Pointer, first * bytes, count * bytes);
  switch (tensor.dtype) {
    case 'float32':
      return new Float32Array(memory).slice();
    case 'float16':
      return Float32Array.from(new Float16Array(memory));
    case 'bfloat16':
      return bfloat16ToFloat32(new Uint16Array(memory));
  }
}

/** bfloat16 is the upper half of a float32. */
function bfloat16ToFloat32(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
  return new Float32Array(bits.buffer);
}
