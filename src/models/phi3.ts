import { fusedSources } from '../layers/linear.ts';
import { GatedMLP } from '../layers/mlp.ts';
import { DecoderForCausalLM } from './decoder.ts';
import { createSelfAttention, LlamaDecoderLayer } from './llama.ts';
import type { ModelContext, ModelFactory } from './model-context.ts';

/** Phi 3, 3.5 and 4: Llama whose checkpoint stacks q, k, v in `qkv_proj` and gate, up in `gate_up_proj`; long contexts by longrope. */
export const createModel: ModelFactory = (context) => new DecoderForCausalLM(context, createLayer);

function createLayer(context: ModelContext, prefix: string, index: number): LlamaDecoderLayer {
  const { hiddenSize, intermediateSize, hiddenAct, numAttentionHeads, numKeyValueHeads, headDim } = context.config;
  const kvSize = numKeyValueHeads * headDim;
  const selfAttn = createSelfAttention(context, `${prefix}.self_attn`, index, {
    qkv: fusedSources(`${prefix}.self_attn.qkv_proj`, [numAttentionHeads * headDim, kvSize, kvSize]),
  });
  const mlp = new GatedMLP(context, {
    hiddenSize,
    intermediateSize,
    hiddenAct,
    bias: false,
    gateUp: fusedSources(`${prefix}.mlp.gate_up_proj`, [intermediateSize, intermediateSize]),
    down: `${prefix}.mlp.down_proj`,
    maxNumTokens: context.maxNumTokens,
  });
  return new LlamaDecoderLayer(context, prefix, selfAttn, mlp);
}
