import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { type CacheDType, DTYPE_CODES } from '../../src/device/dtype.ts';
import { buffer, finish, floats, ints, randomFloats, randomSource, rounded } from './harness.ts';

export interface Shape {
  heads: number;
  kvHeads: number;
  headDim: number;
  blockSize: number;
  dtype: CacheDType;
  window?: number;
  softCap?: number;
  sinks?: Float32Array;
}

export interface Sequence {
  length: number;
  queries: number;
}

/** Queries, keys and values of whole sequences, [length, heads * headDim]. */
export interface Contents {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
}

export const SCALE = 0.3;

export function contents(shape: Shape, length: number, seed: number): Contents {
  const { heads, kvHeads, headDim } = shape;
  return {
    q: randomFloats(length * heads * headDim, seed),
    k: randomFloats(length * kvHeads * headDim, seed + 1),
    v: randomFloats(length * kvHeads * headDim, seed + 2),
  };
}

/** Output of one query and head, in double precision. */
function referenceHead(shape: Shape, c: Contents, position: number, head: number): number[] {
  const { heads, kvHeads, headDim, window = 0, softCap = 0, sinks } = shape;
  const kvHead = Math.floor(head / (heads / kvHeads));
  const first = window > 0 ? Math.max(0, position - window + 1) : 0;
  const scores: number[] = [];
  for (let key = first; key <= position; key++) {
    let score = 0;
    for (let d = 0; d < headDim; d++) {
      score += c.q[(position * heads + head) * headDim + d]! * c.k[(key * kvHeads + kvHead) * headDim + d]!;
    }
    score *= SCALE;
    scores.push(softCap > 0 ? softCap * Math.tanh(score / softCap) : score);
  }
  const highest = Math.max(...scores, sinks?.[head] ?? Number.NEGATIVE_INFINITY);
  const weights = scores.map((score) => Math.exp(score - highest));
  const sum = weights.reduce((a, b) => a + b, 0) + (sinks ? Math.exp(sinks[head]! - highest) : 0);
  return Array.from({ length: headDim }, (_, d) => {
    let out = 0;
    weights.forEach((weight, i) => {
      out += (weight / sum) * c.v[((first + i) * kvHeads + kvHead) * headDim + d]!;
    });
    return out;
  });
}

export function reference(shape: Shape, all: Contents[], sequences: Sequence[]): number[] {
  return sequences.flatMap(({ length, queries }, s) => {
    const { q, k, v } = all[s]!;
    const stored = { q, k: rounded(k, shape.dtype), v: rounded(v, shape.dtype) };
    const rows = Array.from({ length: queries * shape.heads }, (_, i) => {
      const position = length - queries + Math.floor(i / shape.heads);
      return referenceHead(shape, stored, position, i % shape.heads);
    });
    return rows.flat();
  });
}

/** Fills a cache with the sequences' keys and values, blocks in random order, and attends with their last queries. */
export function attend(
  device: CpuDevice,
  shape: Shape,
  all: Contents[],
  sequences: Sequence[],
  seed = 1,
): Float32Array {
  const { heads, kvHeads, headDim, blockSize, dtype, window = 0, softCap = 0, sinks } = shape;
  const code = DTYPE_CODES[dtype];
  const blocksOf = sequences.map(({ length }) => Math.ceil(length / blockSize));
  const numBlocks = blocksOf.reduce((a, b) => a + b, 1);
  const next = randomSource(seed);
  const order = Array.from({ length: numBlocks }, (_, i) => ({ block: i, key: next() }));
  const free = order.sort((a, b) => a.key - b.key).map(({ block }) => block);
  const ldTable = Math.max(1, ...blocksOf);
  const table = new Int32Array(sequences.length * ldTable);
  const cache = buffer(device, numBlocks * device.kvBlockBytes(kvHeads, headDim, blockSize, dtype));
  sequences.forEach(({ length }, s) => {
    for (let i = 0; i < blocksOf[s]!; i++) table[s * ldTable + i] = free.pop()!;
    const slots = Array.from(
      { length },
      (_, p) => table[s * ldTable + Math.floor(p / blockSize)]! * blockSize + (p % blockSize),
    );
    const row = kvHeads * headDim;
    const { k, v } = all[s]!;
    const [keys, values] = [floats(device, k).ptr, floats(device, v).ptr];
    device.ops.reshape_and_cache(
      keys,
      values,
      row,
      ints(device, slots).ptr,
      cache.ptr,
      code,
      length,
      kvHeads,
      headDim,
      blockSize,
    );
  });
  const row = heads * headDim;
  const q = sequences.flatMap(({ length, queries }, s) => [
    ...all[s]!.q.subarray((length - queries) * row, length * row),
  ]);
  const starts = [0];
  for (const { queries } of sequences) starts.push(starts.at(-1)! + queries);
  const out = floats(device, new Float32Array(Math.max(1, starts.at(-1)! * row)).fill(Number.NaN));
  device.ops.paged_attention(
    floats(device, q).ptr,
    row,
    cache.ptr,
    code,
    ints(device, table).ptr,
    ldTable,
    ints(
      device,
      sequences.map(({ length }) => length),
    ).ptr,
    ints(device, starts).ptr,
    sequences.length,
    heads,
    kvHeads,
    headDim,
    blockSize,
    SCALE,
    window,
    softCap,
    sinks ? floats(device, sinks).ptr : 0,
    out.ptr,
    row,
  );
  finish(device);
  return out.f32.slice(0, starts.at(-1)! * row);
}
