import { DTYPE_CODES } from '../../../src/device/dtype.ts';
import { randomFloats, randomSource } from '../harness.ts';
import type { BufferSpec, OpCase } from './op-runner.ts';

const act = (values: ArrayLike<number>): BufferSpec => ({ type: 'act', values });
const f32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'f32', values });
const i32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'i32', values });
const zeros = (length: number) => new Float32Array(Math.max(1, length));

export interface Routing {
  experts: number;
  topK: number;
  scoring: 0 | 1;
  groups?: readonly [count: number, topK: number];
  renormalize?: boolean;
}

const ROUTINGS: readonly Routing[] = [
  { experts: 1, topK: 1, scoring: 0 },
  { experts: 7, topK: 7, scoring: 0 },
  { experts: 128, topK: 8, scoring: 0, renormalize: true },
  { experts: 33, topK: 4, scoring: 1 },
  { experts: 64, topK: 6, scoring: 1, groups: [8, 4], renormalize: true },
  { experts: 6, topK: 3, scoring: 0, groups: [6, 3] },
];

export function routeCases(routings = ROUTINGS): OpCase[] {
  return routings.flatMap(({ experts, topK, scoring, groups = [1, 1], renormalize = false }) =>
    [false, true].map((biased) => {
      const tokens = 9;
      const logits = randomFloats(tokens * experts, experts).map((value) => value * 6);
      // A row of equals, one of what is no number, and a lone one.
      logits.fill(0.5, 0, experts);
      if (experts > 1) logits.fill(Number.NaN, experts, 2 * experts);
      logits[2 * experts] = scoring === 1 ? Number.NaN : -200;
      const bias: Record<string, BufferSpec> = biased ? { bias: f32(randomFloats(experts, 5)) } : {};
      return {
        name: `moe_route, ${topK} of ${experts} experts, scoring ${scoring}, ${groups[1]} of ${groups[0]} groups${biased ? ', biased' : ''}`,
        buffers: {
          logits: f32(logits),
          ids: i32(zeros(tokens * topK)),
          weights: f32(zeros(tokens * topK)),
          ...bias,
        },
        steps: [
          {
            op: 'moe_route' as const,
            args: {
              logits: 'logits',
              correction_bias: biased ? 'bias' : 0,
              ids: 'ids',
              weights: 'weights',
              num_tokens: tokens,
              num_experts: experts,
              top_k: topK,
              scoring,
              num_groups: groups[0],
              topk_groups: groups[1],
              renormalize: renormalize ? 1 : 0,
              scale: 2.5,
            },
          },
        ],
        outputs: ['ids', 'weights'],
      };
    }),
  );
}

/** Ids of `tokens * topK` pairs; experts from `used` on have none. */
export function pairsOf(tokens: number, topK: number, used: number): number[] {
  const next = randomSource(tokens + used);
  return Array.from({ length: tokens * topK }, () => Math.min(used - 1, Math.floor(((next() + 1) / 2) * used)));
}

type Permutation = readonly [name: string, ids: readonly number[], topK: number, experts: number];
const PERMUTATIONS: readonly Permutation[] = [
  ['one token', pairsOf(1, 2, 5), 2, 5],
  ['all tokens to one expert', new Array(40).fill(2), 1, 4],
  ['more pairs than threads', pairsOf(150, 4, 50), 4, 60],
  ['more experts than threads', pairsOf(30, 8, 300), 8, 300],
];

export function permuteCases(permutations = PERMUTATIONS): OpCase[] {
  return permutations.map(([name, ids, topK, experts]): OpCase => {
    const [pairs, n] = [ids.length, 37];
    const tokens = pairs / topK;
    return {
      name: `moe_permute and moe_combine, ${name}`,
      buffers: {
        ids: i32(ids),
        offsets: i32(zeros(experts + 1)),
        rowOfPair: i32(zeros(pairs)),
        tokenOfRow: i32(zeros(pairs)),
        rows: act(randomFloats(pairs * n, 1)),
        weights: f32(randomFloats(pairs, 2)),
        out: act(zeros(tokens * n)),
      },
      steps: [
        {
          op: 'moe_permute' as const,
          args: {
            ids: 'ids',
            expert_offsets: 'offsets',
            row_of_pair: 'rowOfPair',
            token_of_row: 'tokenOfRow',
            num_tokens: tokens,
            top_k: topK,
            num_experts: experts,
          },
        },
        {
          op: 'moe_combine' as const,
          args: {
            rows: 'rows',
            row_of_pair: 'rowOfPair',
            weights: 'weights',
            out: 'out',
            num_tokens: tokens,
            top_k: topK,
            n,
          },
        },
      ],
      outputs: ['offsets', 'rowOfPair', 'tokenOfRow', 'out'],
    };
  });
}

type Grouping = readonly [name: string, rowsOfExperts: readonly number[], n: number, k: number];
const GROUPINGS: readonly Grouping[] = [
  ['one row', [0, 1, 0], 40, 64],
  ['rows of several tiles, an expert without any', [70, 0, 1, 65], 72, 96],
  ['what no tile divides', [3, 20], 33, 50],
];

export function groupedCases(groupings = GROUPINGS): OpCase[] {
  return groupings.flatMap(([name, counts, n, k]) =>
    [false, true].map((biased) => {
      const rows = counts.reduce((sum, count) => sum + count, 0);
      const offsets = [0];
      for (const count of counts) offsets.push(offsets.at(-1)! + count);
      const [ldX, ldOut] = [k + 8, n + 3];
      const bias: Record<string, BufferSpec> = biased ? { biases: f32(randomFloats(counts.length * n, 3)) } : {};
      return {
        name: `grouped_linear, ${name}${biased ? ', biased' : ''}`,
        buffers: {
          x: act(randomFloats((rows + 2) * ldX, 1)),
          weights: { type: 'experts' as const, n, k, values: counts.map((_, e) => randomFloats(n * k, 10 + e)) },
          offsets: i32(offsets),
          out: act(zeros((rows + 2) * ldOut)),
          ...bias,
        },
        steps: [
          {
            op: 'grouped_linear' as const,
            args: {
              x: 'x',
              ld_x: ldX,
              weights: 'weights',
              biases: biased ? 'biases' : 0,
              expert_offsets: 'offsets',
              num_experts: counts.length,
              out: 'out',
              ld_out: ldOut,
              // The last two belong to no expert, and stay what they were.
              rows: rows + 2,
              n,
              k,
            },
          },
        ],
        outputs: ['out'],
      };
    }),
  );
}

function elementCases(): OpCase[] {
  const n = 300;
  const values = randomFloats(3 * 2 * n, n).map((value) => value * 12);
  const [tokens, heads, width, padded] = [3, 4, 20, 32];
  return [
    {
      name: 'swigluoai_and_mul',
      buffers: { in: act(values), out: act(zeros(3 * n)) },
      steps: [{ op: 'swigluoai_and_mul', args: { gate_up: 'in', out: 'out', rows: 3, n, alpha: 1.702, limit: 7 } }],
      outputs: ['out'],
    },
    ...[width + 4, 0].map((stride): OpCase => {
      const [ldX, ldOut] = [heads * (width + 4), heads * padded + 5];
      return {
        name: `copy_heads, ${stride === 0 ? 'one head for all' : 'each its own'}`,
        buffers: { x: act(randomFloats(tokens * ldX, 4)), out: act(randomFloats(tokens * ldOut, 5)) },
        steps: [
          {
            op: 'copy_heads',
            args: {
              x: 'x',
              ld_x: ldX,
              x_head_stride: stride,
              out: 'out',
              ld_out: ldOut,
              out_head_stride: padded,
              num_tokens: tokens,
              num_heads: heads,
              width,
              padded_width: padded,
            },
          },
        ],
        outputs: ['out'],
      };
    }),
    {
      name: 'linear_f32 with a float32 weight, as a router has it',
      buffers: {
        x: act(randomFloats(5 * 70, 1)),
        w: { type: 'linear', n: 9, k: 64, values: randomFloats(9 * 64, 2), dtype: 'float32' },
        out: f32(zeros(5 * 9)),
      },
      steps: [
        {
          op: 'linear_f32',
          args: {
            x: 'x',
            ld_x: 70,
            w: 'w',
            w_dtype: DTYPE_CODES.float32,
            bias: 0,
            out: 'out',
            ld_out: 9,
            m: 5,
            n: 9,
            k: 64,
          },
        },
      ],
      outputs: ['out'],
    },
  ];
}

/** Cases of the ops that mixtures of experts and their families need. */
export function moeCases(): OpCase[] {
  return [...routeCases(), ...permuteCases(), ...groupedCases(), ...elementCases()];
}
