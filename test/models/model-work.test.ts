import { describe, expect, test } from 'bun:test';
import { ModelWork, type Work } from '../../src/layers/model-work.ts';
import { type LoadModelOptions, loadModel } from '../../src/models/load-model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { MemoryWeights } from './memory-weights.ts';
import { ReferenceDevice } from './reference-device.ts';

const FLOAT = 4;
const HIDDEN = 8;
const INTERMEDIATE = 6;
const VOCAB = 11;
const NUM_LAYERS = 2;
const HEADS = 2;
const KV_HEADS = 1;
const HEAD_DIM = 4;

const CONFIG = {
  vocab_size: VOCAB,
  hidden_size: HIDDEN,
  intermediate_size: INTERMEDIATE,
  num_hidden_layers: NUM_LAYERS,
  num_attention_heads: HEADS,
  num_key_value_heads: KV_HEADS,
  head_dim: HEAD_DIM,
};
const LLAMA = { ...CONFIG, architectures: ['LlamaForCausalLM'], model_type: 'llama' };

function weightsOf(shapes: Record<string, number[]>): MemoryWeights {
  const weights = new MemoryWeights().setRandom('model.embed_tokens.weight', [VOCAB, HIDDEN]);
  weights.setRandom('lm_head.weight', [VOCAB, HIDDEN]).setRandom('model.norm.weight', [HIDDEN]);
  for (let layer = 0; layer < NUM_LAYERS; layer++) {
    for (const name of ['input_layernorm', 'post_attention_layernorm']) {
      weights.setRandom(`model.layers.${layer}.${name}.weight`, [HIDDEN]);
    }
    for (const [name, shape] of Object.entries(shapes))
      weights.setRandom(`model.layers.${layer}.${name}.weight`, shape);
  }
  return weights;
}

const ATTENTION = {
  'self_attn.q_proj': [HEADS * HEAD_DIM, HIDDEN],
  'self_attn.k_proj': [KV_HEADS * HEAD_DIM, HIDDEN],
  'self_attn.v_proj': [KV_HEADS * HEAD_DIM, HIDDEN],
  'self_attn.o_proj': [HIDDEN, HEADS * HEAD_DIM],
};
const MLP = {
  'mlp.gate_proj': [INTERMEDIATE, HIDDEN],
  'mlp.up_proj': [INTERMEDIATE, HIDDEN],
  'mlp.down_proj': [HIDDEN, INTERMEDIATE],
};

/** Work of a step by [tokens, context] of its sequences. */
type Estimate = (...sequences: [number, number][]) => Work;

async function load(
  config: Record<string, unknown>,
  shapes: Record<string, number[]>,
  changes: Partial<LoadModelOptions> = {},
): Promise<Estimate> {
  const work = new ModelWork(FLOAT);
  await loadModel({
    device: new ReferenceDevice(),
    config: parseHfConfig(config, 'config.json'),
    weights: weightsOf(shapes),
    dtype: 'float32',
    kvCacheDtype: 'float32',
    blockSize: 4,
    maxNumTokens: 8,
    maxLogitRows: 8,
    maxModelLen: 16,
    tensorParallel: { rank: 0, size: 1 },
    work,
    ...changes,
  });
  return (...sequences) => {
    const step = work.newStep();
    for (const [numTokens, contextLen] of sequences) step.addSequence(numTokens, contextLen, 1);
    return work.estimate(step);
  };
}

/** Of a layer: q, k and v, their output, gate and up, down. */
const LINEAR_WEIGHTS = 8 * 16 + 8 * 8 + 8 * 12 + 6 * 8;
const HEAD_WEIGHTS = 8 * 11;
/** Elements that a token's projections and activation read in a layer, and its query. */
const READ = 8 + 8 + 8 + 8 + 12 + 6;
const WRITTEN = 16 + 8 + 12 + 6 + 8;
/** Key and value of a token in a layer. */
const KV = 2 * 4;

describe('a Llama of two layers', () => {
  test('a prompt of five tokens', async () => {
    const estimate = await load(LLAMA, { ...ATTENTION, ...MLP });
    expect(estimate([5, 5])).toEqual({
      flops: 5 * 2 * 2 * LINEAR_WEIGHTS + 2 * 2 * (2 * 2 * 4) * 25 + 2 * HEAD_WEIGHTS,
      readBytes: FLOAT * (2 * LINEAR_WEIGHTS + HEAD_WEIGHTS + 5 * 2 * READ + 5 * 2 * KV + 8),
      writeBytes: FLOAT * (5 * 2 * (WRITTEN + KV) + 11),
    });
  });

  test('a token behind six others, and two such sequences, which share the weights', async () => {
    const estimate = await load(LLAMA, { ...ATTENTION, ...MLP });
    const one = estimate([1, 7]);
    expect(one).toEqual({
      flops: 2 * 2 * LINEAR_WEIGHTS + 2 * 2 * (2 * 2 * 4) * 7 + 2 * HEAD_WEIGHTS,
      readBytes: FLOAT * (2 * LINEAR_WEIGHTS + HEAD_WEIGHTS + 2 * READ + 7 * 2 * KV + 8),
      writeBytes: FLOAT * (2 * (WRITTEN + KV) + 11),
    });
    expect(estimate([1, 7], [1, 7])).toEqual({
      flops: 2 * one.flops,
      readBytes: 2 * one.readBytes - FLOAT * (2 * LINEAR_WEIGHTS + HEAD_WEIGHTS),
      writeBytes: 2 * one.writeBytes,
    });
  });

  test('a cache of 8-bit floats is read and written by the byte', async () => {
    const [whole, small] = [
      await load(LLAMA, { ...ATTENTION, ...MLP }),
      await load(LLAMA, { ...ATTENTION, ...MLP }, { kvCacheDtype: 'fp8_e4m3' }),
    ].map((estimate) => estimate([1, 7]));
    expect(whole!.flops).toBe(small!.flops);
    expect(whole!.readBytes - small!.readBytes).toBe(3 * 7 * 2 * KV);
    expect(whole!.writeBytes - small!.writeBytes).toBe(3 * 2 * KV);
  });

  test('halves are read as two bytes', async () => {
    const [floats, halves] = [
      await load(LLAMA, { ...ATTENTION, ...MLP }),
      await load(LLAMA, { ...ATTENTION, ...MLP }, { dtype: 'bfloat16' }),
    ].map((estimate) => estimate([1, 7]));
    expect(floats!.readBytes - halves!.readBytes).toBe(2 * (2 * LINEAR_WEIGHTS + HEAD_WEIGHTS));
  });
});

test('a layer with a window sees no more than that', async () => {
  const config = { ...LLAMA, architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 4 };
  const [windowed, whole] = [
    await load(config, { ...ATTENTION, ...MLP }),
    await load({ ...config, sliding_window: null }, { ...ATTENTION, ...MLP }),
  ];
  expect(windowed([1, 3])).toEqual(whole([1, 3]));
  expect(whole([1, 9]).flops - windowed([1, 9]).flops).toBe(2 * 2 * (2 * 2 * 4) * (9 - 4));
  expect(whole([1, 9]).readBytes - windowed([1, 9]).readBytes).toBe(FLOAT * 2 * KV * (9 - 4));
});

test('experts: each token has two of them, and more weights are read until all are', async () => {
  const numExperts = 5;
  const shapes: Record<string, number[]> = { ...ATTENTION, 'block_sparse_moe.gate': [numExperts, HIDDEN] };
  for (let expert = 0; expert < numExperts; expert++) {
    shapes[`block_sparse_moe.experts.${expert}.w1`] = [INTERMEDIATE, HIDDEN];
    shapes[`block_sparse_moe.experts.${expert}.w2`] = [HIDDEN, INTERMEDIATE];
    shapes[`block_sparse_moe.experts.${expert}.w3`] = [INTERMEDIATE, HIDDEN];
  }
  const config = { ...CONFIG, architectures: ['MixtralForCausalLM'], model_type: 'mixtral' };
  const estimate = await load({ ...config, num_local_experts: numExperts, num_experts_per_tok: 2 }, shapes);
  const expertWeights = 8 * 12 + 6 * 8;
  const attentionWeights = 8 * 16 + 8 * 8;
  const ofTokens = (numTokens: number, numRead: number) => ({
    flops:
      numTokens * 2 * 2 * (attentionWeights + 2 * expertWeights) +
      2 * 2 * (2 * 2 * 4) * numTokens ** 2 +
      2 * HEAD_WEIGHTS,
    readBytes:
      FLOAT *
      (2 * (attentionWeights + numRead * expertWeights) +
        HEAD_WEIGHTS +
        numTokens * 2 * (8 + 8 + 8 + 2 * (8 + 12 + 6)) +
        numTokens * 2 * KV +
        8),
    writeBytes: FLOAT * (numTokens * 2 * (16 + 8 + KV + 2 * (12 + 6 + 8)) + 11),
  });
  expect(estimate([1, 1])).toEqual(ofTokens(1, 2));
  expect(estimate([2, 2])).toEqual(ofTokens(2, 4));
  expect(estimate([3, 3])).toEqual(ofTokens(3, 5));
});

test('latent attention: keys and values of every head are made, kept and read', async () => {
  const shapes = {
    'self_attn.q_proj': [HEADS * 6, HIDDEN],
    'self_attn.kv_a_proj_with_mqa': [3 + 2, HIDDEN],
    'self_attn.kv_a_layernorm': [3],
    'self_attn.kv_b_proj': [HEADS * (4 + 4), 3],
    'self_attn.o_proj': [HIDDEN, HEADS * 4],
    ...MLP,
  };
  const config = {
    ...{ ...CONFIG, architectures: ['DeepseekV3ForCausalLM'], model_type: 'deepseek_v3', num_key_value_heads: HEADS },
    ...{ head_dim: 2, q_lora_rank: null, kv_lora_rank: 3, qk_nope_head_dim: 4, qk_rope_head_dim: 2, v_head_dim: 4 },
    first_k_dense_replace: NUM_LAYERS,
  };
  const estimate = await load(config, shapes);
  const weights = 8 * 12 + 8 * (3 + 2) + 3 * 16 + 8 * 8 + 8 * 12 + 6 * 8;
  expect(estimate([1, 7])).toEqual({
    flops: 2 * 2 * weights + 2 * 2 * (2 * 2 * 6) * 7 + 2 * HEAD_WEIGHTS,
    readBytes: FLOAT * (2 * weights + HEAD_WEIGHTS + 2 * (8 + 8 + 8 + 3 + 12 + 8 + 8 + 12 + 6) + 7 * 2 * 24 + 8),
    writeBytes: FLOAT * (2 * (12 + 3 + 2 + 16 + 8 + 24 + 12 + 6 + 8) + 11),
  });
});
