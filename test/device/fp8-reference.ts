/** Weights of 8-bit floats in plain TypeScript, as cpu/quant.h describes them. */
import { FP8_GROUP } from '../../src/device/quantization-scheme.ts';

/** OCP 8-bit floating point, E4M3. */
export function fp8ToFloat(byte: number): number {
  const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
  const sign = byte & 0x80 ? -1 : 1;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7));
}

/** Weights as read back from the bytes of a packed matrix, as float32 [n, k]. */
export function unpackedFp8Weights(bytes: Uint8Array, n: number, k: number): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const panelBytes = 32 * (k + 4 * Math.ceil(k / FP8_GROUP));
  const out = new Float32Array(n * k);
  for (let row = 0; row < n; row++) {
    const [panel, column] = [Math.floor(row / 32), row % 32];
    for (let l = 0; l < k; l++) {
      const group = panel * panelBytes + Math.floor(l / FP8_GROUP) * 32 * (FP8_GROUP + 4);
      const scale = view.getFloat32(group + column * 4, true);
      out[row * k + l] = fp8ToFloat(bytes[group + 32 * (4 + (l % FP8_GROUP)) + column]!) * scale;
    }
  }
  return out;
}
