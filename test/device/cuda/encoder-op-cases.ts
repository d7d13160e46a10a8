import { randomFloats } from '../harness.ts';
import type { BufferSpec, OpCase } from './op-runner.ts';

const act = (values: ArrayLike<number>): BufferSpec => ({ type: 'act', values });
const f32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'f32', values });
const i32 = (values: ArrayLike<number>): BufferSpec => ({ type: 'i32', values });
const zeros = (length: number) => new Float32Array(Math.max(1, length));

export function layerNormCases(sizes: readonly number[] = [1, 31, 64, 1000]): OpCase[] {
  return sizes.flatMap((n) =>
    [true, false].map((biased) => {
      const bias: Record<string, BufferSpec> = biased ? { bias: f32(randomFloats(n, n + 3)) } : {};
      const args = { x: 'x', weight: 'weight', bias: biased ? 'bias' : 0, out: 'out', rows: 5, n, eps: 1e-5 };
      return {
        name: `layer_norm ${n}${biased ? ' with bias' : ''}, in place too`,
        buffers: {
          x: act(randomFloats(5 * n, n)),
          weight: f32(randomFloats(n, n + 2)),
          out: act(zeros(5 * n)),
          ...bias,
        },
        steps: [
          { op: 'layer_norm' as const, args },
          { op: 'layer_norm' as const, args: { ...args, out: 'x' } },
        ],
        outputs: ['out', 'x'],
      };
    }),
  );
}

export interface EncoderShape {
  heads: number;
  kvHeads: number;
  headDim: number;
  reach: number;
}

/** @param lengths of the sequences */
export function encoderAttentionCase(name: string, shape: EncoderShape, lengths: readonly number[]): OpCase {
  const { heads, kvHeads, headDim, reach } = shape;
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  const tokens = starts.at(-1)!;
  const ld = (heads + 2 * kvHeads) * headDim + 5;
  // Rows of k and v lie apart as those of q do.
  const [q, k, v] = [1, 2, 3].map((seed) => act(randomFloats(tokens * ld, seed))) as [
    BufferSpec,
    BufferSpec,
    BufferSpec,
  ];
  return {
    name: `encoder_attention, ${name}`,
    buffers: { q, k, v, starts: i32(starts), out: act(zeros(tokens * (heads * headDim + 3))) },
    steps: [
      {
        op: 'encoder_attention',
        args: {
          q: 'q',
          k: 'k',
          v: 'v',
          ld_qkv: ld,
          query_start_loc: 'starts',
          num_seqs: lengths.length,
          num_heads: heads,
          num_kv_heads: kvHeads,
          head_dim: headDim,
          scale: 0.3,
          reach,
          out: 'out',
          ld_out: heads * headDim + 3,
        },
      },
    ],
    outputs: ['out'],
  };
}

const ENCODER: EncoderShape = { heads: 3, kvHeads: 3, headDim: 32, reach: 0 };
const LENGTHS = [1, 64, 0, 97, 130];

function encoderAttentionCases(): OpCase[] {
  return [
    encoderAttentionCase('a mixed batch', ENCODER, LENGTHS),
    encoderAttentionCase('2 query heads a key head', { ...ENCODER, heads: 4, kvHeads: 2 }, LENGTHS),
    encoderAttentionCase('a reach', { ...ENCODER, reach: 40 }, LENGTHS),
    encoderAttentionCase('a reach of 1', { ...ENCODER, reach: 1, headDim: 20 }, LENGTHS),
    encoderAttentionCase('head_dim 8', { ...ENCODER, headDim: 8 }, [7, 200]),
    encoderAttentionCase('head_dim 80', { ...ENCODER, headDim: 80 }, [33]),
    encoderAttentionCase('head_dim 256', { heads: 1, kvHeads: 1, headDim: 256, reach: 0 }, [70]),
  ];
}

/** Cases of the ops that encoders have beside those of decoders. */
export function encoderCases(): OpCase[] {
  return [...layerNormCases(), ...encoderAttentionCases()];
}
