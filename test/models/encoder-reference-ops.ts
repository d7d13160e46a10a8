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
  const row = (base: number, token: number, head: number) => floats(base + (token * ld + head * dim) * 4, dim);
  for (let s = 0; s < numSeqs; s++) {
    for (let query = starts[s]!; query < starts[s + 1]!; query++) {
      const keys = Array.from({ length: starts[s + 1]! - starts[s]! }, (_, i) => starts[s]! + i).filter(
        (key) => reach === 0 || Math.abs(key - query) <= reach,
      );
      for (let head = 0; head < numHeads; head++) {
        const kvHead = Math.floor(head / (numHeads / numKvHeads));
        const own = row(q, query, head);
        const scores = keys.map(
          (key) => row(k, key, kvHead).reduce((sum, value, i) => sum + value * own[i]!, 0) * scale,
        );
        const best = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - best));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const sums = new Float64Array(dim);
        keys.forEach((key, j) => {
          row(v, key, kvHead).forEach((value, i) => {
            sums[i]! += (weights[j]! / total) * value;
          });
        });
        floats(out + (query * ldOut + head * dim) * 4, dim).set(sums);
      }
    }
  }
};

/** What encoders and pooling need besides the ops of decoders. */
export const ENCODER_REFERENCE_OPS: Partial<Record<OpName, Op>> = {
  layer_norm: layerNorm,
  mean_rows: meanRows,
  encoder_attention: encoderAttention,
};
