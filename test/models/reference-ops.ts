import type { OpName } from '../../src/device/ops.ts';
import { ENCODER_REFERENCE_OPS } from './encoder-reference-ops.ts';
import { MOE_REFERENCE_OPS } from './moe-reference-ops.ts';
import { addresses, dtypeOfCode, floats, ints, roundTo } from './reference-values.ts';

type Op = (...args: number[]) => void;

const rmsNormRow = (x: Float32Array, weight: Float32Array, eps: number): number[] => {
  const meanSquare = dot(x, x) / x.length;
  const inverse = 1 / Math.sqrt(meanSquare + eps);
  return Array.from(x, (value, i) => value * inverse * weight[i]!);
};

const dot = (a: Float32Array, b: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

const embedding: Op = (ids, table, _dtype, out, numTokens, hiddenSize, vocabSize, scale) => {
  const rows = floats(table, vocabSize * hiddenSize);
  const output = floats(out, numTokens * hiddenSize);
  ints(ids, numTokens).forEach((id, token) => {
    for (let i = 0; i < hiddenSize; i++) {
      output[token * hiddenSize + i] = id >= 0 && id < vocabSize ? rows[id * hiddenSize + i]! * scale : 0;
    }
  });
};

const rmsNorm: Op = (x, weight, out, rows, n, eps) => {
  const input = floats(x, rows * n);
  const output = floats(out, rows * n);
  for (let row = 0; row < rows; row++) {
    output.set(rmsNormRow(input.subarray(row * n, (row + 1) * n), floats(weight, n), eps), row * n);
  }
};

const fusedAddRmsNorm: Op = (x, residual, weight, out, rows, n, eps) => {
  const stream = floats(residual, rows * n);
  floats(x, rows * n).forEach((value, i) => {
    stream[i]! += value;
  });
  rmsNorm(residual, weight, out, rows, n, eps);
};

const linear: Op = (x, ldX, w, _dtype, bias, out, ldOut, m, n, k) => {
  const input = floats(x, (m - 1) * ldX + k);
  const weight = floats(w, n * k);
  const output = floats(out, (m - 1) * ldOut + n);
  const biases = bias === 0 ? null : floats(bias, n);
  for (let row = 0; row < m; row++) {
    for (let col = 0; col < n; col++) {
      let sum = biases === null ? 0 : biases[col]!;
      const [x0, w0] = [row * ldX, col * k];
      for (let i = 0; i < k; i++) sum += input[x0 + i]! * weight[w0 + i]!;
      output[row * ldOut + col] = sum;
    }
  }
};

const groupedLinear: Op = (x, ldX, weights, dtype, biases, expertOffsets, numExperts, out, ldOut, _rows, n, k) => {
  const offsets = ints(expertOffsets, numExperts + 1);
  addresses(weights, numExperts).forEach((weight, expert) => {
    const first = offsets[expert]!;
    const bias = biases === 0 ? 0 : biases + expert * n * 4;
    const count = offsets[expert + 1]! - first;
    if (count > 0) linear(x + first * ldX * 4, ldX, weight, dtype, bias, out + first * ldOut * 4, ldOut, count, n, k);
  });
};

const rotationRow = (cosSin: number, positions: number, token: number, rotaryDim: number): Float32Array =>
  floats(cosSin + ints(positions + token * 4, 1)[0]! * rotaryDim * 4, rotaryDim);

const qkNormRope: Op = (
  qkv,
  ldQkv,
  positions,
  cosSin,
  qWeight,
  kWeight,
  eps,
  numTokens,
  numHeads,
  numKvHeads,
  headDim,
  rotaryDim,
  interleaved,
) => {
  const half = rotaryDim / 2;
  for (let token = 0; token < numTokens; token++) {
    const table = rotaryDim === 0 ? new Float32Array(0) : rotationRow(cosSin, positions, token, rotaryDim);
    for (let head = 0; head < numHeads + numKvHeads; head++) {
      const x = floats(qkv + (token * ldQkv + head * headDim) * 4, headDim);
      const weight = head < numHeads ? qWeight : kWeight;
      if (weight !== 0) x.set(rmsNormRow(x, floats(weight, headDim), eps));
      for (let i = 0; i < half; i++) {
        const [first, second] = interleaved === 1 ? [2 * i, 2 * i + 1] : [i, i + half];
        const [a, b] = [x[first]!, x[second]!];
        x[first] = a * table[i]! - b * table[half + i]!;
        x[second] = b * table[i]! + a * table[half + i]!;
      }
    }
  }
};

/** Place of the key of one token and head; its value is `blockSize * numKvHeads * headDim` further. */
const cacheIndex = (slot: number, head: number, numKvHeads: number, headDim: number, blockSize: number) => {
  const block = Math.floor(slot / blockSize);
  const offset = slot % blockSize;
  return ((2 * block * blockSize + offset) * numKvHeads + head) * headDim;
};

const reshapeAndCache: Op = (
  key,
  value,
  ldKv,
  slotMapping,
  kvCache,
  cacheDtype,
  numTokens,
  numKvHeads,
  headDim,
  blockSize,
) => {
  const dtype = dtypeOfCode(cacheDtype);
  const valueOffset = blockSize * numKvHeads * headDim;
  ints(slotMapping, numTokens).forEach((slot, token) => {
    if (slot < 0) return;
    for (let head = 0; head < numKvHeads; head++) {
      const source = (token * ldKv + head * headDim) * 4;
      const target = kvCache + cacheIndex(slot, head, numKvHeads, headDim, blockSize) * 4;
      floats(target, headDim).set(roundTo(floats(key + source, headDim), dtype));
      floats(target + valueOffset * 4, headDim).set(roundTo(floats(value + source, headDim), dtype));
    }
  });
};

const pagedAttention: Op = (
  q,
  ldQ,
  kvCache,
  _cacheDtype,
  blockTables,
  ldBlockTable,
  seqLens,
  queryStartLoc,
  numSeqs,
  numHeads,
  numKvHeads,
  headDim,
  blockSize,
  scale,
  slidingWindow,
  softCap,
  sinks,
  out,
  ldOut,
) => {
  const starts = ints(queryStartLoc, numSeqs + 1);
  const group = numHeads / numKvHeads;
  const valueOffset = blockSize * numKvHeads * headDim * 4;
  ints(seqLens, numSeqs).forEach((seqLen, seq) => {
    const blocks = ints(blockTables + seq * ldBlockTable * 4, ldBlockTable);
    for (let kvHead = 0; kvHead < numKvHeads; kvHead++) {
      const keys: Float32Array[] = [];
      const values: Float32Array[] = [];
      for (let p = 0; p < seqLen; p++) {
        const slot = blocks[Math.floor(p / blockSize)]! * blockSize + (p % blockSize);
        const address = kvCache + cacheIndex(slot, kvHead, numKvHeads, headDim, blockSize) * 4;
        keys.push(floats(address, headDim));
        values.push(floats(address + valueOffset, headDim));
      }
      for (let row = starts[seq]!; row < starts[seq + 1]!; row++) {
        const position = seqLen - starts[seq + 1]! + row;
        const first = slidingWindow === 0 ? 0 : Math.max(0, position - slidingWindow + 1);
        for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
          const query = floats(q + (row * ldQ + head * headDim) * 4, headDim);
          const sink = sinks === 0 ? Number.NEGATIVE_INFINITY : floats(sinks, numHeads)[head]!;
          const output = floats(out + (row * ldOut + head * headDim) * 4, headDim);
          attendOne(query, keys, values, first, position, { scale, softCap, sink }, output);
        }
      }
    }
  });
};

/** One query over the keys first..last. */
const attendOne = (
  query: Float32Array,
  keys: Float32Array[],
  values: Float32Array[],
  first: number,
  last: number,
  { scale, softCap, sink }: { scale: number; softCap: number; sink: number },
  output: Float32Array,
): void => {
  const scores: number[] = [];
  let max = sink;
  for (let p = first; p <= last; p++) {
    const raw = dot(query, keys[p]!) * scale;
    const score = softCap === 0 ? raw : softCap * Math.tanh(raw / softCap);
    scores.push(score);
    max = Math.max(max, score);
  }
  let total = Math.exp(sink - max);
  const sums = new Float64Array(output.length);
  scores.forEach((score, j) => {
    const weight = Math.exp(score - max);
    const value = values[first + j]!;
    total += weight;
    for (let i = 0; i < sums.length; i++) sums[i]! += weight * value[i]!;
  });
  for (let i = 0; i < sums.length; i++) output[i] = sums[i]! / total;
};

/** The Maclaurin series of erf, which converges fast for the arguments of activations. */
const erf = (x: number): number => {
  if (Math.abs(x) > 5) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
};

const ACTIVATIONS: readonly ((x: number) => number)[] = [
  (x) => x / (1 + Math.exp(-x)),
  (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  Math.tanh,
  (x) => Math.max(0, x),
];

const actAndMul: Op = (gateUp, out, rows, n, kind) => {
  const input = floats(gateUp, rows * 2 * n);
  const output = floats(out, rows * n);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < n; i++) {
      output[row * n + i] = ACTIVATIONS[kind]!(input[row * 2 * n + i]!) * input[row * 2 * n + n + i]!;
    }
  }
};

const activate: Op = (x, out, count, kind) => {
  const [input, output] = [floats(x, count), floats(out, count)];
  for (let i = 0; i < count; i++) output[i] = ACTIVATIONS[kind]!(input[i]!);
};

const swigluoaiAndMul: Op = (gateUp, out, rows, n, alpha, limit) => {
  const input = floats(gateUp, rows * 2 * n);
  const output = floats(out, rows * n);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < n; i++) {
      const gate = Math.min(input[row * 2 * n + i]!, limit);
      const up = Math.max(-limit, Math.min(input[row * 2 * n + n + i]!, limit));
      output[row * n + i] = (gate / (1 + Math.exp(-alpha * gate))) * (up + 1);
    }
  }
};

const copyHeads: Op = (x, ldX, xStride, out, ldOut, outStride, numTokens, numHeads, width, paddedWidth) => {
  for (let token = 0; token < numTokens; token++) {
    for (let head = 0; head < numHeads; head++) {
      const target = floats(out + (token * ldOut + head * outStride) * 4, paddedWidth);
      target.fill(0);
      target.set(floats(x + (token * ldX + head * xStride) * 4, width));
    }
  }
};

const add: Op = (x, y, out, count) => {
  const [left, right, output] = [floats(x, count), floats(y, count), floats(out, count)];
  for (let i = 0; i < count; i++) output[i] = left[i]! + right[i]!;
};

const softCap: Op = (x, count, cap) => {
  const values = floats(x, count);
  for (let i = 0; i < count; i++) values[i] = cap * Math.tanh(values[i]! / cap);
};

const gatherRows: Op = (x, indices, out, rows, n) => {
  const output = floats(out, rows * n);
  ints(indices, rows).forEach((index, row) => {
    output.set(floats(x + index * n * 4, n), row * n);
  });
};

/** The ops of a forward pass. */
export const REFERENCE_OPS: Partial<Record<OpName, Op>> = {
  embedding,
  rms_norm: rmsNorm,
  fused_add_rms_norm: fusedAddRmsNorm,
  linear,
  linear_f32: linear,
  qk_norm_rope: qkNormRope,
  reshape_and_cache: reshapeAndCache,
  paged_attention: pagedAttention,
  act_and_mul: actAndMul,
  swigluoai_and_mul: swigluoaiAndMul,
  copy_heads: copyHeads,
  add,
  activate,
  soft_cap: softCap,
  gather_rows: gatherRows,
  grouped_linear: groupedLinear,
  ...ENCODER_REFERENCE_OPS,
  ...MOE_REFERENCE_OPS,
};
