import type { DevicePtr } from '../device/device.ts';
import type { Attention } from '../layers/attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { GatedMLP } from '../layers/mlp.ts';
import { RMSNorm } from '../layers/rms-norm.ts';
import type { SelfAttention } from '../layers/self-attention.ts';
import { DecoderForCausalLM, type DecoderLayer, type DecoderOptions } from './decoder.ts';
import { gemmaEmbeddingScale, NORM_OFFSET } from './gemma.ts';
import { type AttentionVariant, createMLP, createSelfAttention } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';
import { multiplier, multiplierOrZero } from './multiplier.ts';

/** Attention and MLP between two norms each, the second before the addition to the residual stream. */
class Gemma2DecoderLayer implements DecoderLayer {
  readonly attention: Attention;
  private readonly inputLayernorm: RMSNorm;
  private readonly postAttentionLayernorm: RMSNorm;
  private readonly preFeedforwardLayernorm: RMSNorm;
  private readonly postFeedforwardLayernorm: RMSNorm;

  constructor(
    context: ModelContext,
    prefix: string,
    private readonly selfAttn: SelfAttention,
    private readonly mlp: GatedMLP,
  ) {
    const { hiddenSize, rmsNormEps } = context.config;
    const norm = (name: string) =>
      new RMSNorm(context, `${prefix}.${name}`, hiddenSize, rmsNormEps, { offset: NORM_OFFSET });
    this.attention = selfAttn.attention;
    this.inputLayernorm = norm('input_layernorm');
    this.postAttentionLayernorm = norm('post_attention_layernorm');
    this.preFeedforwardLayernorm = norm('pre_feedforward_layernorm');
    this.postFeedforwardLayernorm = norm('post_feedforward_layernorm');
  }

  forward(hidden: DevicePtr, residual: DevicePtr, context: ForwardContext, isFirst: boolean): void {
    const { numTokens } = context;
    if (isFirst) this.inputLayernorm.forward(residual, hidden, numTokens);
    else this.inputLayernorm.addAndForward(hidden, residual, numTokens);
    this.selfAttn.forward(hidden, hidden, context);
    this.postAttentionLayernorm.forward(hidden, hidden, numTokens);
    this.preFeedforwardLayernorm.addAndForward(hidden, residual, numTokens);
    this.mlp.forward(hidden, hidden, numTokens);
    this.postFeedforwardLayernorm.forward(hidden, hidden, numTokens);
  }
}

/** Gemma's form of a decoder: four norms a layer, scaled embeddings, scores scaled by `query_pre_attn_scalar`. */
export function createGemma(
  context: ModelContext,
  variant: AttentionVariant = {},
  options: DecoderOptions = {},
): DecoderForCausalLM {
  const { config } = context;
  const scale = multiplier(config, 'query_pre_attn_scalar', 256) ** -0.5;
  return new DecoderForCausalLM(
    context,
    (layerContext, prefix, index) =>
      new Gemma2DecoderLayer(
        layerContext,
        prefix,
        createSelfAttention(layerContext, `${prefix}.self_attn`, index, { scale, ...variant }),
        createMLP(layerContext, `${prefix}.mlp`),
      ),
    { embeddingScale: gemmaEmbeddingScale(context), normOffset: NORM_OFFSET, ...options },
  );
}

/** Gemma 2: soft caps on attention scores and logits; every other layer has a sliding window. */
export const createModel: ModelFactory = (context) => {
  const { config } = context;
  return createGemma(
    context,
    { softCap: multiplierOrZero(config, 'attn_logit_softcapping', 50) },
    { logitSoftCap: multiplierOrZero(config, 'final_logit_softcapping', 30) },
  );
};
