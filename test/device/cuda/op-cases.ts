import type { Device } from '../../../src/device/device.ts';
import { type CacheDType, DTYPE_CODES, type FloatDType } from '../../../src/device/dtype.ts';
import { randomFloats, randomSource } from '../harness.ts';
import { loraBlocks, loraProblem } from '../lora-reference.ts';
import { encoderCases } from './encoder-op-cases.ts';
import { moeCases } from './moe-cases.ts';
import type { BufferSpec, OpCase } from './op-runner.ts';
import { quantCases, quantizedExpertCases } from './quant-cases.ts';
import { rowOpCases } from './row-op-cases.ts';

const act = (values: ArrayLike<number>): BufferSpec => ({ type: 'act', values });
const f32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'f32', values });
const i32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'i32', values });
const zeros = (length: number) => new Float32Array(Math.max(1, length));

/** @param sizes of rows */
export function normCases(sizes: readonly number[] = [1, 2, 31, 33, 64, 257, 1000], rows = 5): OpCase[] {
  return sizes.flatMap((n) => {
    const buffers = {
      x: act(randomFloats(rows * n, n)),
      residual: act(randomFloats(rows * n, n + 1)),
      weight: f32(randomFloats(n, n + 2)),
      out: act(zeros(rows * n)),
    };
    const args = { x: 'x', weight: 'weight', rows, n, eps: 1e-6 };
    return [
      {
        name: `rms_norm ${n}`,
        buffers,
        steps: [{ op: 'rms_norm' as const, args: { ...args, out: 'out' } }],
        outputs: ['out'],
      },
      {
        name: `rms_norm in place ${n}`,
        buffers,
        steps: [{ op: 'rms_norm' as const, args: { ...args, out: 'x' } }],
        outputs: ['x'],
      },
      {
        name: `fused_add_rms_norm in place ${n}`,
        buffers,
        steps: [{ op: 'fused_add_rms_norm' as const, args: { ...args, residual: 'residual', out: 'x' } }],
        outputs: ['x', 'residual'],
      },
    ];
  });
}

/** Few aligned rows, rows that are not aligned, and many. */
const LINEAR_SHAPES = [
  [1, 1, 1],
  [1, 40, 33],
  [7, 65, 128],
  [40, 24, 256],
  [1, 17, 8],
  [2, 33, 264],
  [3, 5, 1096],
  [4, 70, 512],
  [5, 16, 64],
] as const;

/**
 * By turns the biases are a model's.
 * @param shapes [m, n, k]
 */
export function linearCases(shapes: readonly (readonly [number, number, number])[] = LINEAR_SHAPES): OpCase[] {
  return shapes.flatMap(([m, n, k], index) =>
    (['linear', 'linear_f32'] as const).flatMap((op) =>
      [true, false].map((biased) => {
        const [ldX, ldOut] = [k % 8 === 0 ? k + 8 : k + 3, n + 5];
        const out = op === 'linear' ? act(zeros(m * ldOut)) : f32(zeros(m * ldOut));
        const values = randomFloats(n, 3);
        const bias: BufferSpec = index % 2 === 0 ? { type: 'vector', values } : f32(values);
        const w = { type: 'linear' as const, n, k, values: randomFloats(n * k, 2) };
        return {
          name: `${op} [${m}, ${n}, ${k}]${biased ? ' with bias' : ''}`,
          buffers: { x: act(randomFloats(m * ldX, 1)), w, out, ...(biased ? { bias } : {}) },
          steps: [
            { op, args: { x: 'x', ld_x: ldX, w: 'w', bias: biased ? 'bias' : 0, out: 'out', ld_out: ldOut, m, n, k } },
          ],
          outputs: ['out'],
        };
      }),
    ),
  );
}

type LoraShape = readonly [rows: number, k: number, columns: number[], ranks: (number | null)[]];
const LORA_SHAPES: readonly LoraShape[] = [
  [2, 1, [1], [1]],
  [5, 33, [9, 2, 5], [3, null, 1]],
  [40, 70, [300, 17], [8, 16]],
];

export function loraCases(shapes: readonly LoraShape[] = LORA_SHAPES): OpCase[] {
  return shapes.map(([numRows, k, columns, ranks]) => {
    const problem = loraProblem(numRows, k, columns, ranks);
    const starts = [0];
    for (const { rows } of problem.groups) starts.push(starts.at(-1)! + rows.length);
    const offsets = [0];
    for (const count of columns) offsets.push(offsets.at(-1)! + count);
    return {
      name: `add_lora ${numRows}, ${k}, [${columns}], ranks ${ranks}`,
      buffers: {
        x: act(randomFloats(numRows * problem.ldX, 1)),
        rows: i32(problem.groups.flatMap(({ rows }) => rows)),
        starts: i32(starts),
        slots: i32(problem.groups.map(({ slot }) => slot)),
        blocks: { type: 'placed', place: (device, storage) => loraBlocks(device, problem, storage) },
        offsets: i32(offsets),
        out: act(randomFloats(numRows * problem.ldOut, 2)),
      },
      steps: [
        {
          op: 'add_lora',
          args: {
            x: 'x',
            ld_x: problem.ldX,
            rows: 'rows',
            group_offsets: 'starts',
            group_slots: 'slots',
            num_rows: starts.at(-1)!,
            num_groups: problem.groups.length,
            blocks: 'blocks',
            slice_offsets: 'offsets',
            num_slices: columns.length,
            max_rank: Math.max(...ranks.map((rank) => rank ?? 1)),
            out: 'out',
            ld_out: problem.ldOut,
            n: offsets.at(-1)!,
            k,
          },
        },
      ],
      outputs: ['out'],
    };
  });
}

/** Each head size without rotation, with one of 8 elements and with one of all. */
export function ropeCases(headDims: readonly number[] = [16, 24, 80, 256], tokens = 4): OpCase[] {
  const cases: OpCase[] = [];
  for (const headDim of headDims) {
    for (const rotaryDim of [0, 8, headDim]) {
      for (const [interleaved, normed] of [
        [0, true],
        [1, false],
      ] as const) {
        const [heads, kvHeads, maxPosition] = [3, 2, 20];
        const ld = (heads + 2 * kvHeads) * headDim + 8;
        const norms: Record<string, BufferSpec> = normed
          ? { qw: f32(randomFloats(headDim, 1)), kw: f32(randomFloats(headDim, 2)) }
          : {};
        const args = {
          qkv: 'qkv',
          ld_qkv: ld,
          positions: 'positions',
          cos_sin: rotaryDim > 0 ? 'cosSin' : 0,
          q_weight: normed ? 'qw' : 0,
          k_weight: normed ? 'kw' : 0,
          eps: 1e-6,
          num_tokens: tokens,
          num_heads: heads,
          num_kv_heads: kvHeads,
          head_dim: headDim,
          rotary_dim: rotaryDim,
          interleaved,
        };
        const buffers = {
          qkv: act(randomFloats(tokens * ld, headDim)),
          positions: i32(Array.from({ length: tokens }, (_, token) => (token * 19) % maxPosition)),
          cosSin: f32(randomFloats(maxPosition * Math.max(1, rotaryDim), 5)),
          ...norms,
        };
        const name = `qk_norm_rope ${headDim}, ${rotaryDim} rotated, ${interleaved ? 'pairs' : 'halves'}${normed ? ', normed' : ''}`;
        cases.push({ name, buffers, steps: [{ op: 'qk_norm_rope', args }], outputs: ['qkv'] });
      }
    }
  }
  return cases;
}

/** @param sizes of what act_and_mul gives for a row */
export function rowCases(sizes: readonly number[] = [1, 7, 300], rows = 3): OpCase[] {
  const cases: OpCase[] = [];
  for (const n of sizes) {
    for (const kind of [0, 1, 2]) {
      const values = randomFloats(rows * 2 * n, n).map((value, i) => (i % (2 * n) < n ? value * 6 : value));
      const args = { gate_up: 'in', out: 'out', rows, n, kind };
      const buffers = { in: act(values), out: act(zeros(rows * n)) };
      cases.push({
        name: `act_and_mul ${n}, kind ${kind}`,
        buffers,
        steps: [{ op: 'act_and_mul', args }],
        outputs: ['out'],
      });
    }
  }
  return cases;
}

export interface AttentionShape {
  heads: number;
  kvHeads: number;
  headDim: number;
  blockSize: number;
  window?: number;
  softCap?: number;
  sinks?: readonly number[];
  /** By default what other storage has. */
  cacheDtype?: CacheDType;
  /** What keys and values are multiplied with. */
  keyScale?: number;
  valueScale?: number;
}

/** Sequences as [length, queries]: the last `queries` tokens attend. */
export function attentionCase(
  name: string,
  shape: AttentionShape,
  sequences: readonly (readonly [number, number])[],
  storage: FloatDType,
): OpCase {
  const { heads, kvHeads, headDim, blockSize, cacheDtype = storage, keyScale = 1, valueScale = 1 } = shape;
  const blocks = sequences.map(([length]) => Math.ceil(length / blockSize));
  const numBlocks = blocks.reduce((a, b) => a + b, 1);
  const ldTable = Math.max(1, ...blocks);
  // Blocks of neighbours are mixed; entries past a sequence's end are never read.
  const next = randomSource(numBlocks);
  const free = Array.from({ length: numBlocks }, (_, id) => ({ id, key: next() })).sort((a, b) => a.key - b.key);
  const table = new Int32Array(sequences.length * ldTable).fill(2 ** 30);
  const slots: number[] = [];
  sequences.forEach(([length], s) => {
    for (let block = 0; block < blocks[s]!; block++) table[s * ldTable + block] = free.pop()!.id;
    for (let p = 0; p < length; p++) {
      slots.push(table[s * ldTable + Math.floor(p / blockSize)]! * blockSize + (p % blockSize));
    }
  });
  const starts = [0];
  for (const [, queries] of sequences) starts.push(starts.at(-1)! + queries);
  const [row, kvRow, tokens] = [heads * headDim, kvHeads * headDim, slots.length];
  const cacheArgs = {
    kv_cache: 'cache',
    cache_dtype: DTYPE_CODES[cacheDtype],
    num_kv_heads: kvHeads,
    head_dim: headDim,
    block_size: blockSize,
  };
  return {
    name,
    buffers: {
      key: act(randomFloats(tokens * kvRow, 1).map((x) => x * keyScale)),
      value: act(randomFloats(tokens * kvRow, 2).map((x) => x * valueScale)),
      slots: i32(slots),
      cache: {
        type: 'opaque',
        bytes: (device: Device) => numBlocks * device.kvBlockBytes(kvHeads, headDim, blockSize, cacheDtype),
      },
      q: act(randomFloats(Math.max(1, starts.at(-1)!) * row, 3)),
      table: i32(table),
      lens: i32(sequences.map(([length]) => length)),
      starts: i32(starts),
      out: act(zeros(starts.at(-1)! * row)),
      ...(shape.sinks ? { sinks: f32(shape.sinks) } : {}),
    },
    steps: [
      {
        op: 'reshape_and_cache',
        args: { ...cacheArgs, key: 'key', value: 'value', ld_kv: kvRow, slot_mapping: 'slots', num_tokens: tokens },
      },
      {
        op: 'paged_attention',
        args: {
          ...cacheArgs,
          q: 'q',
          ld_q: row,
          block_tables: 'table',
          ld_block_table: ldTable,
          seq_lens: 'lens',
          query_start_loc: 'starts',
          num_seqs: sequences.length,
          num_heads: heads,
          scale: 0.3,
          sliding_window: shape.window ?? 0,
          soft_cap: shape.softCap ?? 0,
          sinks: shape.sinks ? 'sinks' : 0,
          out: 'out',
          ld_out: row,
        },
      },
    ],
    outputs: ['out'],
  };
}

const BASE: AttentionShape = { heads: 4, kvHeads: 2, headDim: 32, blockSize: 16 };
const MIXED = [
  [1, 1],
  [16, 16],
  [17, 1],
  [64, 0],
  [65, 3],
  [90, 90],
] as const;
const SMALL = [
  [1, 1],
  [33, 33],
  [40, 2],
] as const;
const VARIANTS: Record<string, Partial<AttentionShape>> = {
  'head_dim 8': { headDim: 8 },
  'head_dim 24': { headDim: 24 },
  'head_dim 20, no multiple of 8': { headDim: 20 },
  'head_dim 64': { headDim: 64 },
  'head_dim 80': { headDim: 80 },
  'head_dim 128': { headDim: 128, heads: 2, kvHeads: 1 },
  'head_dim 256': { headDim: 256, heads: 2, kvHeads: 1 },
  'one query head a key head': { heads: 3, kvHeads: 3 },
  '7 query heads a key head': { heads: 7, kvHeads: 1 },
  '70 query heads a key head': { heads: 70, kvHeads: 1, headDim: 16 },
  'blocks of 1': { blockSize: 1 },
  'blocks of 24': { blockSize: 24 },
  'a window': { window: 33 },
  'a window of 1': { window: 1 },
  'a soft cap': { softCap: 0.5 },
  sinks: { sinks: [0.5, -3, 12, 0] },
  'an fp8 cache': { cacheDtype: 'fp8_e4m3' },
  'an fp8 cache, head_dim 20': { cacheDtype: 'fp8_e4m3', headDim: 20 },
  'an fp8 cache of subnormal and too great numbers': { cacheDtype: 'fp8_e4m3', keyScale: 0.02, valueScale: 1000 },
  'all at once': { window: 20, softCap: 2, sinks: [1, 2, 3, 4], blockSize: 8, headDim: 24 },
};

function attentionCases(storage: FloatDType): OpCase[] {
  return [
    attentionCase('paged_attention, a mixed batch', BASE, MIXED, storage),
    attentionCase('paged_attention, a long context', { ...BASE, heads: 2, kvHeads: 1 }, [[1100, 1]], storage),
    attentionCase(
      'paged_attention, long contexts, several warps of rows',
      { ...BASE, heads: 40, kvHeads: 1, headDim: 16 },
      [
        [1100, 1],
        [520, 2],
      ],
      storage,
    ),
    attentionCase(
      'paged_attention, a window across ranges',
      { ...BASE, heads: 2, kvHeads: 1, window: 520 },
      [[1100, 3]],
      storage,
    ),
    ...Object.entries(VARIANTS).map(([name, variant]) =>
      attentionCase(`paged_attention, ${name}`, { ...BASE, ...variant }, SMALL, storage),
    ),
  ];
}

export function logprobsCases(vocabularies: readonly number[] = [1, 5, 64, 1500]): OpCase[] {
  return vocabularies.flatMap((vocab) => {
    const rows = 6;
    const logits = randomFloats(rows * vocab, vocab).map((value) => value * 8);
    // Ties, and what is no number.
    for (let i = 0; i < vocab; i++) {
      logits[vocab + i] = Math.round(logits[vocab + i]!);
      logits[2 * vocab + i] = Number.NEGATIVE_INFINITY;
    }
    logits[3 * vocab] = Number.NaN;
    logits[4 * vocab] = Number.POSITIVE_INFINITY;
    const targets = [0, vocab - 1, 0, vocab - 1, 0, Math.floor(vocab / 2)];
    return [false, true].map((isNamed) => {
      const topN = Math.min(vocab, isNamed ? 3 : 20);
      const width = topN + 1;
      const named = Array.from({ length: rows * topN }, (_, i) => (i * 7) % vocab);
      // No token has this id.
      named[0] = vocab;
      return {
        name: `logprobs of ${vocab}${isNamed ? ', named tokens' : ''}`,
        buffers: {
          logits: f32(logits),
          targets: i32(targets),
          named: i32(named),
          ids: i32(zeros(rows * width)),
          values: f32(zeros(rows * width)),
          ranks: i32(zeros(rows)),
        },
        steps: [
          {
            op: 'logprobs' as const,
            args: {
              logits: 'logits',
              rows,
              vocab_size: vocab,
              targets: 'targets',
              named: isNamed ? 'named' : 0,
              top_n: topN,
              ids: 'ids',
              values: 'values',
              ranks: 'ranks',
              as_logits: 0,
            },
          },
        ],
        outputs: ['ids', 'values', 'ranks'],
      };
    });
  });
}

/** Cases of every op of the table but `sample`, whose rows are built by SamplingBatch. */
export function opCases(storage: FloatDType): OpCase[] {
  return [
    ...normCases(),
    ...linearCases(),
    ...loraCases(),
    ...ropeCases(),
    ...rowCases(),
    ...rowOpCases(),
    ...attentionCases(storage),
    ...encoderCases(),
    ...logprobsCases(),
    ...moeCases(),
    ...quantCases(),
    ...quantizedExpertCases(),
  ];
}
