import type { OpName } from '../../src/device/ops.ts';
import { floats, ints } from './reference-values.ts';

type Op = (...args: number[]) => void;

const layerNorm: Op = (x, weight, bias, out, rows, n, eps) => {
  const [gain, offset] = [floats(weight, n), bias === 0 ? null : floats(bias, n)];
  for (let row = 0; row < rows; row++) {
    const values = Array.from(floats(x + row * n * 4, n));
    const mean = values.reduce((sum, value) => sum + value, 0) / n;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n;
    const normed = values.map(
      (value, i) => ((value - mean) / Math.sqrt(variance + eps)) * gain[i]! + (offset?.[i] ?? 0),
    );
    floats(out + row * n * 4, n).set(normed);
  }
};

const meanRows: Op = (x, spans, out, rows, n) => {
  const bounds = ints(spans, 2 * rows);
  for (let row = 0; row < rows; row++) {
    const [first, count] = [bounds[2 * row]!, bounds[2 * row + 1]!];
    const sums = new Float64Array(n);
    for (let r = first; r < first + count; r++)
      floats(x + r * n * 4, n).forEach((value, i) => {
        sums[i]! += value;
      });
    floats(out + row * n * 4, n).set(sums.map((sum) => sum / Math.max(1, count)));
  }
};

const dot = (a: Float32Array, b: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

const encoderAttention: Op = (
  q,
  k,
  v,
  ld,
  queryStartLoc,
  numSeqs,
  numHeads,
  numKvHeads,
  dim,
  scale,
  reach,
  out,
  ldOut,
) => {
  const starts = ints(queryStartLoc, numSeqs + 1);
  for (let s = 0; s < numSeqs; s++) {
    const tokens = Array.from({ length: starts[s + 1]! - starts[s]! }, (_, i) => starts[s]! + i);
    for (let head = 0; head < numHeads; head++) {
      const kvHead = Math.floor(head / (numHeads / numKvHeads));
      const rows = (base: number, h: number) => tokens.map((token) => floats(base + (token * ld + h * dim) * 4, dim));
      const [queries, keys, values] = [rows(q, head), rows(k, kvHead), rows(v, kvHead)];
      queries.forEach((query, i) => {
        const isSeen = (j: number) => reach === 0 || Math.abs(j - i) <= reach;
        const scores = keys.map((key, j) => (isSeen(j) ? dot(query, key) * scale : Number.NEGATIVE_INFINITY));
        const best = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - best));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const output = floats(out + (tokens[i]! * ldOut + head * dim) * 4, dim);
        for (let d = 0; d < dim; d++) {
          let sum = 0;
          for (let j = 0; j < values.length; j++) sum += (weights[j]! / total) * values[j]![d]!;
          output[d] = sum;
        }
      });
    }
  }
};

/** What encoders and pooling need besides the ops of decoders. */
export const ENCODER_REFERENCE_OPS: Partial<Record<OpName, Op>> = {
  layer_norm: layerNorm,
  mean_rows: meanRows,
  encoder_attention: encoderAttention,
};
