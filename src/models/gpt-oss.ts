import { type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import type { MatrixSource } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { readVector } from '../layers/host-vector.ts';
import type { GatedActivation } from '../layers/mlp.ts';
import { type ExpertWeights, MixtureOfExperts } from '../layers/moe.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import { ConfigFields } from './config-fields.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/**
 * GPT-OSS: attention sinks, a window on every other layer, biases everywhere, and mixtures of experts with a clamped SwiGLU. Its weights
 * as bfloat16: the MXFP4 of the first release is a quantization that the loader refuses.
 */
export const createModel: ModelFactory = (context) =>
  new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const bias = new ConfigFields(context.config.raw, 'config.json').boolean('attention_bias', true);
    const variant = { qkvBias: bias, outBias: bias, sinks: true };
    const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index, variant);
    return new LlamaDecoderLayer(layerContext, prefix, selfAttn, createExperts(layerContext, `${prefix}.mlp`));
  });

interface ExpertSizes {
  numExperts: number;
  hiddenSize: number;
  intermediateSize: number;
}

function createExperts(context: ModelContext, prefix: string): MixtureOfExperts {
  const { hiddenSize, intermediateSize, raw } = context.config;
  const fields = new ConfigFields(raw, 'config.json');
  const numExperts = fields.positiveInt('num_local_experts', 128);
  return new MixtureOfExperts(context, {
    router: {
      prefix: `${prefix}.router`,
      hiddenSize,
      bias: true,
      numExperts,
      topK: fields.positiveInt('num_experts_per_tok', 4),
      scoring: 'softmax',
      renormalize: true,
      maxNumTokens: context.maxNumTokens,
    },
    intermediateSize,
    experts: stackedExperts(context.weights, `${prefix}.experts`, { numExperts, hiddenSize, intermediateSize }),
    activation: clampedSwiglu(fields.positiveNumber('swiglu_alpha', 1.702), fields.positiveNumber('swiglu_limit', 7)),
    shared: null,
  });
}

function clampedSwiglu(alpha: number, limit: number): GatedActivation {
  return (device, gateUp, out, rows, n) => device.ops.swigluoai_and_mul(gateUp, out, rows, n, alpha, limit);
}

/** All experts in one tensor, [experts, in, out], where columns of gate and up take turns. */
function stackedExperts(weights: WeightSource, prefix: string, sizes: ExpertSizes): ExpertWeights {
  const { numExperts, hiddenSize, intermediateSize } = sizes;
  const gateUp = weights.get(`${prefix}.gate_up_proj`, [numExperts, hiddenSize, 2 * intermediateSize]);
  const down = weights.get(`${prefix}.down_proj`, [numExperts, intermediateSize, hiddenSize]);
  const gateUpBias = weights.get(`${prefix}.gate_up_proj_bias`, [numExperts, 2 * intermediateSize]);
  const downBias = weights.get(`${prefix}.down_proj_bias`, [numExperts, hiddenSize]);
  const common = { numExperts, purpose: 'weights' };
  return {
    gateUp: {
      ...common,
      matrices: transposed(gateUp, 2),
      biases: separateTurns(readVector(gateUpBias, 0, numExperts * 2 * intermediateSize), intermediateSize),
    },
    down: { ...common, matrices: transposed(down, 1), biases: readVector(downBias, 0, numExperts * hiddenSize) },
  };
}

/** Rows of [gate, up, gate, up, …], 2 * n each, as [gates | ups]. */
function separateTurns(rows: Float32Array, n: number): Float32Array {
  return rows.map((_, i) => {
    const within = i % (2 * n);
    return rows[i - within + 2 * (within % n) + Math.floor(within / n)]!;
  });
}

/** Side of the squares that are transposed at a time, so that what is read and written stays in the cache. */
const TILE = 32;

/**
 * Gives one expert's matrix of a tensor [experts, in, out] as rows of output features. With `turns`, every turns-th column belongs
 * together: columns 0, turns, 2 * turns, … come first. The memory is used again for the next expert.
 */
function transposed(tensor: TensorView, turns: number): (expert: number) => MatrixSource[] {
  const [, inFeatures, outFeatures] = tensor.shape as [number, number, number];
  const elementBytes = dtypeBytes(tensor.dtype);
  const Elements = elementBytes === 4 ? Uint32Array : Uint16Array;
  const size = inFeatures * outFeatures;
  let target: Uint16Array | Uint32Array | null = null;
  return (expert) => {
    target ??= new Elements(new ArrayBuffer(size * elementBytes));
    const source = new Elements(
      toArrayBuffer(tensor.ptr as Pointer, expert * size * elementBytes, size * elementBytes),
    );
    for (let i0 = 0; i0 < inFeatures; i0 += TILE) {
      const iEnd = Math.min(inFeatures, i0 + TILE);
      for (let row0 = 0; row0 < outFeatures; row0 += TILE) {
        const rowEnd = Math.min(outFeatures, row0 + TILE);
        for (let row = row0; row < rowEnd; row++) {
          const perTurn = outFeatures / turns;
          const column = (row % perTurn) * turns + Math.floor(row / perTurn);
          for (let i = i0; i < iEnd; i++) target[row * inFeatures + i] = source[i * outFeatures + column]!;
        }
      }
    }
    return [{ ptr: ptr(target), dtype: tensor.dtype, rows: outFeatures, cols: inFeatures, ld: inFeatures }];
  };
}
