import type { DevicePtr } from '../device/device.ts';
import type { Attention } from '../layers/attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { GatedMLP } from '../layers/mlp.ts';
import { RMSNorm } from '../layers/rms-norm.ts';
import type { SelfAttention } from '../layers/self-attention.ts';
import { DecoderForCausalLM, type DecoderLayer } from './decoder.ts';
import { createMLP, createSelfAttention } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Attention and MLP read the residual stream as it is; a norm follows each before the addition. */
class Olmo2DecoderLayer implements DecoderLayer {
  readonly attention: Attention;
  private readonly postAttentionLayernorm: RMSNorm;
  private readonly postFeedforwardLayernorm: RMSNorm;

  constructor(
    private readonly context: ModelContext,
    prefix: string,
    private readonly selfAttn: SelfAttention,
    private readonly mlp: GatedMLP,
  ) {
    const { hiddenSize, rmsNormEps } = context.config;
    this.attention = selfAttn.attention;
    this.postAttentionLayernorm = new RMSNorm(context, `${prefix}.post_attention_layernorm`, hiddenSize, rmsNormEps);
    this.postFeedforwardLayernorm = new RMSNorm(
      context,
      `${prefix}.post_feedforward_layernorm`,
      hiddenSize,
      rmsNormEps,
    );
  }

  forward(hidden: DevicePtr, residual: DevicePtr, context: ForwardContext, isFirst: boolean): void {
    const { numTokens } = context;
    if (!isFirst) this.addTo(residual, hidden, numTokens);
    this.selfAttn.forward(residual, hidden, context);
    this.postAttentionLayernorm.forward(hidden, hidden, numTokens);
    this.addTo(residual, hidden, numTokens);
    this.mlp.forward(residual, hidden, numTokens);
    this.postFeedforwardLayernorm.forward(hidden, hidden, numTokens);
  }

  private addTo(residual: DevicePtr, hidden: DevicePtr, numTokens: number): void {
    this.context.device.ops.add(residual, hidden, residual, numTokens * this.context.config.hiddenSize);
  }
}

/** OLMo 2: norms behind attention and MLP instead of before, and one norm each over all of q and all of k. */
export const createModel: ModelFactory = (context) =>
  new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const qkNorm = { eps: context.config.rmsNormEps, span: 'projection' } as const;
    const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index, { qkNorm });
    return new Olmo2DecoderLayer(layerContext, prefix, selfAttn, createMLP(layerContext, `${prefix}.mlp`));
  });
