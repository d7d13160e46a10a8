import type { DevicePtr } from '../device/device.ts';
import type { Attention } from '../layers/attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import { separateSources } from '../layers/linear.ts';
import { type FeedForward, GatedMLP } from '../layers/mlp.ts';
import { RMSNorm } from '../layers/rms-norm.ts';
import { type AttentionBlock, SelfAttention, type SelfAttentionOptions } from '../layers/self-attention.ts';
import { DecoderForCausalLM, type DecoderLayer } from './decoder.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Where a family's attention differs from Llama's. */
export type AttentionVariant = Partial<
  Pick<SelfAttentionOptions, 'qkv' | 'qkvBias' | 'outBias' | 'scale' | 'qkNorm' | 'softCap' | 'sinks'>
>;

/** The attention of layer `index` as config.json describes it: q, k and v apart, biases with `attention_bias`. */
export function createSelfAttention(
  context: ModelContext,
  prefix: string,
  index: number,
  variant: AttentionVariant = {},
): SelfAttention {
  const { config, rotaryEmbeddings } = context;
  const { numAttentionHeads, numKeyValueHeads, headDim } = config;
  const rope = config.layerRopes[index] ?? null;
  return new SelfAttention(context, {
    prefix,
    hiddenSize: config.hiddenSize,
    numHeads: numAttentionHeads,
    numKvHeads: numKeyValueHeads,
    headDim,
    qkv: separateSources({
      [`${prefix}.q_proj`]: numAttentionHeads * headDim,
      [`${prefix}.k_proj`]: numKeyValueHeads * headDim,
      [`${prefix}.v_proj`]: numKeyValueHeads * headDim,
    }),
    qkvBias: config.attentionBias,
    outBias: config.attentionBias,
    scale: headDim ** -0.5,
    rotary: rope && rotaryEmbeddings.get(rope),
    qkNorm: null,
    slidingWindow: config.slidingWindows[index]!,
    softCap: 0,
    sinks: false,
    kvCacheDtype: context.kvCacheDtype,
    blockSize: context.blockSize,
    maxNumTokens: context.maxNumTokens,
    ...variant,
  });
}

/** The gated MLP of a layer: gate and up apart, biases with `mlp_bias`. */
export function createMLP(context: ModelContext, prefix: string): GatedMLP {
  const { hiddenSize, intermediateSize, hiddenAct, mlpBias } = context.config;
  return new GatedMLP(context, {
    hiddenSize,
    intermediateSize,
    hiddenAct,
    bias: mlpBias,
    gateUp: separateSources({ [`${prefix}.gate_proj`]: intermediateSize, [`${prefix}.up_proj`]: intermediateSize }),
    down: `${prefix}.down_proj`,
    maxNumTokens: context.maxNumTokens,
  });
}

/** Attention and MLP, each behind a norm and added to the residual stream. */
export class LlamaDecoderLayer implements DecoderLayer {
  readonly attention: Attention;
  private readonly inputLayernorm: RMSNorm;
  private readonly postAttentionLayernorm: RMSNorm;

  constructor(
    context: ModelContext,
    prefix: string,
    private readonly selfAttn: AttentionBlock,
    private readonly mlp: FeedForward,
    eps = context.config.rmsNormEps,
    normOffset = 0,
  ) {
    const { hiddenSize } = context.config;
    this.attention = selfAttn.attention;
    const norm = (name: string) => new RMSNorm(context, `${prefix}.${name}`, hiddenSize, eps, { offset: normOffset });
    this.inputLayernorm = norm('input_layernorm');
    this.postAttentionLayernorm = norm('post_attention_layernorm');
  }

  forward(hidden: DevicePtr, residual: DevicePtr, context: ForwardContext, isFirst: boolean): void {
    const { numTokens } = context;
    if (isFirst) this.inputLayernorm.forward(residual, hidden, numTokens);
    else this.inputLayernorm.addAndForward(hidden, residual, numTokens);
    this.selfAttn.forward(hidden, hidden, context);
    this.postAttentionLayernorm.addAndForward(hidden, residual, numTokens);
    this.mlp.forward(hidden, hidden, numTokens);
  }
}

/** A stack of Llama layers whose attention may differ in what `variant` says. */
export function createLlamaLike(context: ModelContext, variant?: AttentionVariant): DecoderForCausalLM {
  return new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index, variant);
    return new LlamaDecoderLayer(layerContext, prefix, selfAttn, createMLP(layerContext, `${prefix}.mlp`));
  });
}

/** Llama 1 to 3.3 and the many models that kept its form. */
export const createModel: ModelFactory = (context) => createLlamaLike(context);
