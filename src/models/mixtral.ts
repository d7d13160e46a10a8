import { gatedActivation } from '../layers/mlp.ts';
import { MixtureOfExperts, separateExperts } from '../layers/moe.ts';
import { ConfigFields } from './config-fields.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Mixtral: Mistral with a mixture of experts in every layer, whose weights are a softmax over the chosen ones. */
export const createModel: ModelFactory = (context) =>
  new DecoderForCausalLM(context, (layerContext, prefix, index) => {
    const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index);
    return new LlamaDecoderLayer(
      layerContext,
      prefix,
      selfAttn,
      createExperts(layerContext, `${prefix}.block_sparse_moe`),
    );
  });

function createExperts(context: ModelContext, prefix: string): MixtureOfExperts {
  const { hiddenSize, intermediateSize, hiddenAct, raw } = context.config;
  const fields = new ConfigFields(raw, 'config.json');
  const numExperts = fields.positiveInt('num_local_experts', 8);
  return new MixtureOfExperts(context, {
    router: {
      prefix: `${prefix}.gate`,
      hiddenSize,
      bias: false,
      numExperts,
      topK: fields.positiveInt('num_experts_per_tok', 2),
      scoring: 'softmax',
      renormalize: true,
      maxNumTokens: context.maxNumTokens,
    },
    intermediateSize,
    experts: separateExperts(context, { numExperts, hiddenSize, intermediateSize }, (expert) => {
      const own = `${prefix}.experts.${expert}`;
      return { gate: `${own}.w1`, up: `${own}.w3`, down: `${own}.w2` };
    }),
    activation: gatedActivation(hiddenAct),
    shared: null,
  });
}
