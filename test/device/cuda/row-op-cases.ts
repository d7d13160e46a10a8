/** Cases of the ops that look up, gather, copy and change rows element by element. */
import { randomFloats } from '../harness.ts';
import type { BufferSpec, OpCase } from './op-runner.ts';

const act = (values: ArrayLike<number>): BufferSpec => ({ type: 'act', values });
const f32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'f32', values });
const i32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'i32', values });
const zeros = (length: number) => new Float32Array(Math.max(1, length));
/** What functions saturate at, round to and vanish at; finite in every type of activations. */
const EXTREMES = [0, -0, 1e-7, -1e-7, 0.5, -0.5, 20, -20, 89, -89, 1000, -1000, 60000, -60000];

/** Random numbers, every third one of the extremes. */
export function withExtremes(length: number, seed: number): Float32Array {
  return randomFloats(length, seed).map((value, i) =>
    i % 3 === 2 ? EXTREMES[Math.floor(i / 3) % EXTREMES.length]! : value * 6,
  );
}

/** Ids at and beyond both ends of a vocabulary, and some within. */
export function adversarialIds(vocab: number, count: number): number[] {
  const ids = [vocab - 1, 0, -1, vocab, 2 ** 31 - 1, -(2 ** 31), Math.floor(vocab / 2)];
  return Array.from({ length: count }, (_, i) => (i < ids.length ? ids[i]! : (i * 7919) % vocab));
}

export function embeddingCase(vocab: number, hidden: number, ids: readonly number[], scale: number): OpCase {
  return {
    name: `embedding of ${ids.length} ids in ${vocab} x ${hidden}`,
    buffers: {
      ids: i32(ids),
      table: { type: 'linear', n: vocab, k: hidden, values: randomFloats(vocab * hidden, 8) },
      out: act(zeros(ids.length * hidden).fill(3)),
    },
    steps: [
      {
        op: 'embedding',
        args: {
          ...{ ids: 'ids', table: 'table', out: 'out' },
          ...{ num_tokens: ids.length, hidden_size: hidden, vocab_size: vocab, scale },
        },
      },
    ],
    outputs: ['out'],
  };
}

export function addCase(count: number): OpCase {
  // Sums stay finite in float16.
  const [x, y] = [1, 2].map((seed) => withExtremes(count + 1, seed).map((value) => value / 4)) as [
    Float32Array,
    Float32Array,
  ];
  return {
    name: `add ${count}, in place too`,
    buffers: { x: act(x), y: act(y), out: act(zeros(count + 1)) },
    steps: [
      { op: 'add', args: { x: 'x', y: 'y', out: 'out', count } },
      { op: 'add', args: { x: 'x', y: 'y', out: 'x', count } },
      { op: 'add', args: { x: 'out', y: 'y', out: 'y', count } },
    ],
    outputs: ['out', 'x', 'y'],
  };
}

export function softCapCase(count: number, cap: number): OpCase {
  return {
    name: `soft_cap ${count} by ${cap}`,
    buffers: { x: f32(withExtremes(count + 3, 3)) },
    steps: [{ op: 'soft_cap', args: { x: 'x', count, cap } }],
    outputs: ['x'],
  };
}

export function activateCase(count: number, kind: number): OpCase {
  return {
    name: `activate ${count}, kind ${kind}, in place too`,
    buffers: { x: act(withExtremes(count + 3, kind)), out: act(zeros(count + 3)) },
    steps: [
      { op: 'activate', args: { x: 'x', out: 'out', count, kind } },
      { op: 'activate', args: { x: 'x', out: 'x', count, kind } },
    ],
    outputs: ['out', 'x'],
  };
}

/** @param spans of rows as [first, count] */
export function meanRowsCase(n: number, spans: readonly (readonly [number, number])[], outF32: 0 | 1): OpCase {
  const numRows = Math.max(1, ...spans.map(([first, count]) => first + count));
  return {
    name: `mean_rows of ${n}, spans ${JSON.stringify(spans)}, ${outF32 === 1 ? 'float32' : 'act'} out`,
    buffers: {
      x: act(randomFloats(numRows * n, 1)),
      spans: i32([...spans.flat(), 0]),
      out: (outF32 === 1 ? f32 : act)(randomFloats((spans.length + 1) * n, 2)),
    },
    steps: [{ op: 'mean_rows', args: { x: 'x', spans: 'spans', out: 'out', rows: spans.length, n, out_f32: outF32 } }],
    outputs: ['out'],
  };
}

export function gatherRowsCase(n: number, numRows: number, indices: readonly number[]): OpCase {
  return {
    name: `gather_rows of ${n}, rows ${indices} of ${numRows}`,
    buffers: {
      x: act(randomFloats(numRows * n, 1)),
      indices: i32([...indices, 0]),
      out: act(zeros(indices.length * n + 1)),
    },
    steps: [{ op: 'gather_rows', args: { x: 'x', indices: 'indices', out: 'out', rows: indices.length, n } }],
    outputs: ['out'],
  };
}

/** @param tokens as [slot, position] */
export function gatherTokenIdsCase(
  ldTable: number,
  numSlots: number,
  tokens: readonly (readonly [number, number])[],
): OpCase {
  return {
    name: `gather_token_ids ${JSON.stringify(tokens)} of ${numSlots} x ${ldTable}`,
    buffers: {
      table: i32(Array.from({ length: numSlots * ldTable }, (_, i) => i * 3)),
      slots: i32([...tokens.map(([slot]) => slot), 0]),
      positions: i32([...tokens.map(([, position]) => position), 0]),
      ids: i32(zeros(tokens.length + 1)),
    },
    steps: [
      {
        op: 'gather_token_ids',
        args: {
          ...{ token_table: 'table', ld_table: ldTable, slots: 'slots', positions: 'positions' },
          ...{ out: 'ids', num_tokens: tokens.length },
        },
      },
    ],
    outputs: ['ids'],
  };
}

export function copyBytesCase(words: number): OpCase {
  return {
    name: `copy_bytes of ${words} words`,
    buffers: { from: f32(randomFloats(words + 1, 3)), to: f32(zeros(words + 1)) },
    steps: [{ op: 'copy_bytes', args: { src: 'from', dst: 'to', bytes: words * 4 } }],
    outputs: ['to'],
  };
}

/** @param pairs of (source, destination), which may build on each other */
export function copyBlocksCase(
  numBlocks: number,
  blockWords: number,
  pairs: readonly (readonly [number, number])[],
): OpCase {
  return {
    name: `copy_blocks ${JSON.stringify(pairs)} of ${numBlocks}, ${blockWords} words each`,
    buffers: { blocks: f32(randomFloats(numBlocks * blockWords, 4)), pairs: i32([...pairs.flat(), 0]) },
    steps: [
      {
        op: 'copy_blocks',
        args: { kv_cache: 'blocks', pairs: 'pairs', num_pairs: pairs.length, block_bytes: blockWords * 4 },
      },
    ],
    outputs: ['blocks'],
  };
}

export interface HeadCopyShape {
  tokens: number;
  heads: number;
  width: number;
  /** What a head is padded by, lies apart by, and what a row is longer by. */
  padding: number;
  gap: number;
  rest: number;
  /** Every head gets the same elements. */
  shared: boolean;
}

export function copyHeadsCase({ tokens, heads, width, padding, gap, rest, shared }: HeadCopyShape): OpCase {
  const [padded, xStride] = [width + padding, shared ? 0 : width + gap];
  const outStride = padded + gap;
  const [ldX, ldOut] = [(heads - 1) * xStride + width + rest, (heads - 1) * outStride + padded + rest];
  return {
    name: `copy_heads ${tokens} x ${heads} x ${width} to ${padded}, ${shared ? 'shared' : `${xStride} apart`}`,
    buffers: { x: act(randomFloats(Math.max(1, tokens * ldX), 5)), out: act(randomFloats(tokens * ldOut + 1, 6)) },
    steps: [
      {
        op: 'copy_heads',
        args: {
          ...{ x: 'x', ld_x: ldX, x_head_stride: xStride, out: 'out', ld_out: ldOut, out_head_stride: outStride },
          ...{ num_tokens: tokens, num_heads: heads, width, padded_width: padded },
        },
      },
    ],
    outputs: ['out'],
  };
}

/** One of each. */
export function rowOpCases(): OpCase[] {
  return [
    embeddingCase(11, 70, [10, 0, -1, 11, 3, 2 ** 31 - 1], 2.5),
    addCase(999),
    softCapCase(770, 0.5),
    ...[0, 1, 2, 3, 4].map((kind) => activateCase(770, kind)),
    ...([0, 1] as const).map((outF32) =>
      meanRowsCase(
        37,
        [
          [0, 1],
          [8, 1],
          [2, 5],
          [3, 0],
        ],
        outF32,
      ),
    ),
    gatherRowsCase(37, 6, [5, 0, 5, 2]),
    gatherTokenIdsCase(50, 4, [
      [3, 49],
      [0, 0],
      [1, 7],
      [3, 48],
    ]),
    copyBytesCase(998),
    copyBlocksCase(4, 100, [
      [0, 2],
      [2, 3],
      [1, 1],
    ]),
  ];
}
