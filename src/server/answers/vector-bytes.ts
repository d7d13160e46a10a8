import { endianness as hostEndianness } from 'node:os';
import type { VectorEncoding } from '../protocol/pooling-fields.ts';

/** The numbers as bytes of the type and order that were asked for; rounded to nearest. */
export function vectorBytes(values: Float32Array, { dtype, endianness }: VectorEncoding): Buffer {
  const bytes = Buffer.from(inType(values, dtype));
  const isBig = endianness === 'native' ? hostEndianness() === 'BE' : endianness === 'big';
  if (isBig === (hostEndianness() === 'BE')) return bytes;
  return dtype === 'float32' ? bytes.swap32() : bytes.swap16();
}

function inType(values: Float32Array, dtype: VectorEncoding['dtype']): ArrayBuffer {
  switch (dtype) {
    case 'float32':
      return values.slice().buffer;
    case 'float16':
      return new Float16Array(values).buffer;
    case 'bfloat16': {
      const bits = new Uint32Array(values.slice().buffer);
      return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16).buffer;
    }
  }
}
