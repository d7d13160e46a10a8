import type { QuantizableSource } from './device.ts';
import { FP8_GROUP, type QuantizationScheme } from './quantization-scheme.ts';

/** Output and input features of what the sources make together. Throws an Error that begins with `purpose` where they make nothing. */
export function checkQuantizable(
  sources: readonly QuantizableSource[],
  scheme: QuantizationScheme,
  purpose: string,
): { n: number; k: number } {
  const n = sources.reduce((rows, source) => rows + source.rows, 0);
  const k = sources[0]?.cols ?? 0;
  if (n <= 0 || k <= 0 || sources.some((source) => source.cols !== k)) {
    const shapes = sources.map((source) => `[${source.rows}, ${source.cols}]`);
    throw new Error(`${purpose}: can't quantize ${shapes.join(', ') || 'nothing'} as ${scheme}`);
  }
  for (const source of sources) {
    if (source.dtype !== 'fp8_e4m3') continue;
    if (scheme !== 'fp8') throw new Error(`${purpose}: can't quantize 8-bit floats as ${scheme}`);
    const expected = source.rows * Math.ceil(k / FP8_GROUP);
    if (source.scales.length !== expected) {
      throw new Error(`${purpose}: ${source.scales.length} scales for [${source.rows}, ${k}], expected ${expected}`);
    }
  }
  return { n, k };
}
