import { type FeedForward, gatedActivation } from '../layers/mlp.ts';
import { MixtureOfExperts, separateExperts } from '../layers/moe.ts';
import { ConfigFields } from './config-fields.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createMLP, createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Qwen 3 with mixtures of experts, in all layers but those that the config makes dense. */
export const createModel: ModelFactory = (context) =>
  new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const qkNorm = { eps: context.config.rmsNormEps };
    const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index, { qkNorm });
    return new LlamaDecoderLayer(
      layerContext,
      prefix,
      selfAttn,
      createFeedForward(layerContext, `${prefix}.mlp`, index),
    );
  });

function createFeedForward(context: ModelContext, prefix: string, index: number): FeedForward {
  const { hiddenSize, hiddenAct, raw } = context.config;
  const fields = new ConfigFields(raw, 'config.json');
  const numExperts = fields.nonNegativeInt('num_experts', fields.nonNegativeInt('num_local_experts', 128));
  const isDense =
    fields.nonNegativeInts('mlp_only_layers', []).includes(index) ||
    numExperts === 0 ||
    (index + 1) % fields.positiveInt('decoder_sparse_step', 1) !== 0;
  if (isDense) return createMLP(context, prefix);

  const intermediateSize = fields.positiveInt('moe_intermediate_size', 768);
  return new MixtureOfExperts(context, {
    router: {
      prefix: `${prefix}.gate`,
      hiddenSize,
      bias: false,
      numExperts,
      topK: fields.positiveInt('num_experts_per_tok', 8),
      scoring: 'softmax',
      renormalize: fields.boolean('norm_topk_prob', false),
      maxNumTokens: context.maxNumTokens,
    },
    intermediateSize,
    experts: separateExperts(context, { numExperts, hiddenSize, intermediateSize }, (expert) => {
      const own = `${prefix}.experts.${expert}`;
      return { gate: `${own}.gate_proj`, up: `${own}.up_proj`, down: `${own}.down_proj` };
    }),
    activation: gatedActivation(hiddenAct),
    shared: null,
  });
}
