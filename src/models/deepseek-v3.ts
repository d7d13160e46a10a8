import { LatentAttention } from '../layers/latent-attention.ts';
import { separateSources } from '../layers/linear.ts';
import { type FeedForward, GatedMLP, gatedActivation } from '../layers/mlp.ts';
import { MixtureOfExperts, separateExperts } from '../layers/moe.ts';
import type { RopeParameters } from '../layers/rope-parameters.ts';
import { ConfigFields } from './config-fields.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createMLP, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/**
 * DeepSeek V3 and R1: multi-head latent attention, a few dense layers, then mixtures of experts that are chosen by groups, with an expert
 * that all tokens share. The layers behind `num_hidden_layers`, for multi-token prediction, are left unread.
 */
export const createModel: ModelFactory = (context) =>
  new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const fields = new ConfigFields(context.config.raw, 'config.json');
    const isDense = index < fields.nonNegativeInt('first_k_dense_replace', 3);
    const mlp = isDense
      ? createMLP(layerContext, `${prefix}.mlp`)
      : createExperts(layerContext, `${prefix}.mlp`, fields);
    return new LlamaDecoderLayer(layerContext, prefix, createAttention(layerContext, prefix, index, fields), mlp);
  });

function createAttention(context: ModelContext, prefix: string, index: number, fields: ConfigFields): LatentAttention {
  const { config, rotaryEmbeddings } = context;
  const rope = config.layerRopes[index] ?? config.rope;
  const qkNopeHeadDim = fields.positiveInt('qk_nope_head_dim', 128);
  const qkRopeHeadDim = config.headDim;
  return new LatentAttention(context, {
    prefix: `${prefix}.self_attn`,
    hiddenSize: config.hiddenSize,
    numHeads: config.numAttentionHeads,
    qLoraRank: fields.raw.q_lora_rank === null ? null : fields.positiveInt('q_lora_rank', 1536),
    kvLoraRank: fields.positiveInt('kv_lora_rank', 512),
    qkNopeHeadDim,
    qkRopeHeadDim,
    vHeadDim: fields.positiveInt('v_head_dim', 128),
    bias: config.attentionBias,
    rmsNormEps: config.rmsNormEps,
    scale: (qkNopeHeadDim + qkRopeHeadDim) ** -0.5 * yarnScale(rope) ** 2,
    rotary: rotaryEmbeddings.get(rope),
    interleaved: fields.boolean('rope_interleave', true),
    kvCacheDtype: context.kvCacheDtype,
    blockSize: context.blockSize,
    maxNumTokens: context.maxNumTokens,
  });
}

/** What YaRN multiplies queries and keys with for long contexts: DeepSeek applies it to the scores of the whole head. */
function yarnScale({ ropeType, factor, mscaleAllDim }: RopeParameters): number {
  return ropeType === 'yarn' && factor > 1 && mscaleAllDim !== null ? 0.1 * mscaleAllDim * Math.log(factor) + 1 : 1;
}

function createExperts(context: ModelContext, prefix: string, fields: ConfigFields): FeedForward {
  const { hiddenSize, hiddenAct } = context.config;
  const { maxNumTokens } = context;
  const intermediateSize = fields.positiveInt('moe_intermediate_size', 2048);
  const numExperts = fields.positiveInt('n_routed_experts', 256);
  return new MixtureOfExperts(context, {
    router: {
      prefix: `${prefix}.gate`,
      hiddenSize,
      bias: false,
      numExperts,
      topK: fields.positiveInt('num_experts_per_tok', 8),
      scoring: 'sigmoid',
      renormalize: fields.boolean('norm_topk_prob', true),
      scale: fields.positiveNumber('routed_scaling_factor', 2.5),
      groups: { count: fields.positiveInt('n_group', 8), topK: fields.positiveInt('topk_group', 4) },
      correctionBias: `${prefix}.gate.e_score_correction_bias`,
      maxNumTokens,
    },
    intermediateSize,
    experts: separateExperts(context, { numExperts, hiddenSize, intermediateSize }, (expert) => {
      const own = `${prefix}.experts.${expert}`;
      return { gate: `${own}.gate_proj`, up: `${own}.up_proj`, down: `${own}.down_proj` };
    }),
    activation: gatedActivation(hiddenAct),
    shared: createSharedExperts(context, `${prefix}.shared_experts`, fields, intermediateSize),
  });
}

/** The shared experts are one MLP, as wide as all of them. */
function createSharedExperts(
  context: ModelContext,
  prefix: string,
  fields: ConfigFields,
  expertSize: number,
): GatedMLP | null {
  const intermediateSize = fields.nonNegativeInt('n_shared_experts', 1) * expertSize;
  if (intermediateSize === 0) return null;
  return new GatedMLP(context, {
    hiddenSize: context.config.hiddenSize,
    intermediateSize,
    hiddenAct: context.config.hiddenAct,
    bias: false,
    gateUp: separateSources({ [`${prefix}.gate_proj`]: intermediateSize, [`${prefix}.up_proj`]: intermediateSize }),
    down: `${prefix}.down_proj`,
    maxNumTokens: context.maxNumTokens,
  });
}
