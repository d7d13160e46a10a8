import { DecoderForCausalLM } from './decoder.ts';
import { createMLP, createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelFactory } from './model-context.ts';
import { multiplier } from './multiplier.ts';

/**
 * Granite 3 (dense): Llama with multipliers on embeddings, attention scores, logits, and on what each block adds to the residual stream.
 *
 * The last costs nothing: with r the stream and m its multiplier, r / m grows by each block's plain output, and since
 * norm(r) = (r / m) / sqrt(mean((r / m)²) + eps / m²), every norm gives the same for r / m with eps / m². So the embeddings are
 * divided by m and the norms' epsilon by m².
 */
export const createModel: ModelFactory = (context) => {
  const { config } = context;
  const residual = multiplier(config, 'residual_multiplier');
  const rmsNormEps = config.rmsNormEps / residual ** 2;
  const scale = multiplier(config, 'attention_multiplier');
  return new DecoderForCausalLM(
    context,
    (layerContext, prefix, index) => {
      const selfAttn = createSelfAttention(layerContext, `${prefix}.self_attn`, index, { scale });
      return new LlamaDecoderLayer(
        layerContext,
        prefix,
        selfAttn,
        createMLP(layerContext, `${prefix}.mlp`),
        rmsNormEps,
      );
    },
    {
      embeddingScale: multiplier(config, 'embedding_multiplier') / residual,
      rmsNormEps,
      logitScale: 1 / multiplier(config, 'logits_scaling'),
    },
  );
};
