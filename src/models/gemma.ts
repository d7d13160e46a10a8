import type { FloatDType } from '../device/dtype.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createMLP, createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Gemma keeps norm weights around 0: the norm multiplies by 1 + weight. */
export const NORM_OFFSET = 1;

/** What all Gemmas multiply their token embeddings with. */
export function gemmaEmbeddingScale({ config, dtype }: ModelContext): number {
  return roundTo(Math.sqrt(config.hiddenSize), dtype);
}

/** Gemma, the first: Llama with scaled embeddings and norms of its own kind. */
export const createModel: ModelFactory = (context) => {
  const config = { ...context.config, hiddenAct: hiddenActOf(context) };
  return new DecoderForCausalLM(
    { ...context, config },
    (layerContext, prefix, index) =>
      new LlamaDecoderLayer(
        layerContext,
        prefix,
        createSelfAttention(layerContext, `${prefix}.self_attn`, index),
        createMLP(layerContext, `${prefix}.mlp`),
        config.rmsNormEps,
        NORM_OFFSET,
      ),
    { embeddingScale: gemmaEmbeddingScale(context), normOffset: NORM_OFFSET },
  );
};

/** `hidden_act` of the first checkpoints names the exact GELU, which they were not trained with; `hidden_activation` tells the truth. */
function hiddenActOf({ config }: ModelContext): string {
  return config.raw.hidden_activation == null ? 'gelu_pytorch_tanh' : config.hiddenAct;
}

/** The reference keeps its embedding scale in the weights' type, which shows in bfloat16: sqrt(2560) is 50.5 there. */
function roundTo(value: number, dtype: FloatDType): number {
  if (dtype === 'float16') return Math.f16round(value);
  const single = new Float32Array([value]);
  if (dtype === 'bfloat16') {
    const bits = new Uint32Array(single.buffer);
    bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  }
  return single[0]!;
}
