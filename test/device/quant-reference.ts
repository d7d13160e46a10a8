/** Quantized products in plain TypeScript, as cpu/quant.h and the op's documentation describe them. */

export const GROUP = { int8: 128, int4: 64 } as const;

const f32 = Math.fround;
/** kQuantPanelColumns. */
const PANEL = 16;

/** Ties to even. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** x as it is after quantization of each group of `group` columns: float64 [m, k]. */
export function dequantizedActivations(x: Float32Array, m: number, k: number, group: number): Float64Array {
  const out = new Float64Array(m * k);
  for (let row = 0; row < m; row++) {
    for (let k0 = 0; k0 < k; k0 += group) {
      const at = row * k + k0;
      const values = x.subarray(at, row * k + Math.min(k, k0 + group));
      const scale = f32(values.reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127);
      const inverse = scale > 0 ? f32(1 / scale) : 0;
      values.forEach((v, i) => {
        out[at + i] = roundHalfEven(f32(v * inverse)) * scale;
      });
    }
  }
  return out;
}

/** [m, k] · [n, k]ᵀ + bias, in float64. */
export function product(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  bias: ArrayLike<number>,
  shape: [number, number, number],
) {
  const [m, n, k] = shape;
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = bias[j]!;
      for (let l = 0; l < k; l++) sum += x[i * k + l]! * w[j * k + l]!;
      out[i * n + j] = sum;
    }
  }
  return out;
}

/** Weights as read back from the words of a packed matrix: float64 [n, k]. */
export function unpackedWeights(words: Uint32Array, n: number, k: number, scheme: 'int8' | 'int4'): Float64Array {
  const bits = scheme === 'int8' ? 8 : 4;
  const perWord = 32 / bits;
  const group = GROUP[scheme];
  const columnWords = Math.ceil(k / perWord) + Math.ceil(k / group);
  const out = new Float64Array(n * k);
  const float = new Float32Array(1);
  const floatBits = new Uint32Array(float.buffer);
  for (let row = 0; row < n; row++) {
    let at = Math.floor(row / PANEL) * columnWords * PANEL + (row % PANEL);
    let zero = 0;
    for (let l = 0; l < k; l++) {
      if (l % group === 0) {
        floatBits[0] = words[at]! & 0xffff0000;
        zero = words[at]! & 0xffff;
        at += PANEL;
      }
      const within = l % perWord;
      const shift = bits === 8 ? within * 8 : (within % 4) * 8 + Math.floor(within / 4) * 4;
      const number = (words[at]! >>> shift) & (2 ** bits - 1);
      out[row * k + l] = (number - zero) * float[0]!;
      if (within === perWord - 1 || l % group === group - 1) at += PANEL;
    }
  }
  return out;
}
