import { toArrayBuffer } from 'bun:ffi';
import type { TensorView, WeightSource } from '../../src/loader/weight-source.ts';
import type { HfConfig } from '../../src/models/hf-config.ts';
import { type GgufTensor, type GgufValue, writeGguf } from './gguf-file.ts';
import { encodeElements, type GgufType } from './tensor-types.ts';

/** What matrices are written as. The embedding, which is the output layer too where they are tied, keeps 8 bits under Q4_0. */
export type GgufScheme = 'BF16' | 'Q8_0' | 'Q4_0';

/** By transformers' name. llama.cpp's Llama rotates neighbouring pairs of a head, transformers its two halves. */
const ARCHITECTURES: Readonly<Record<string, { name: string; rotatesNeighbours: boolean; hasQkNorm: boolean }>> = {
  LlamaForCausalLM: { name: 'llama', rotatesNeighbours: true, hasQkNorm: false },
  Qwen3ForCausalLM: { name: 'qwen3', rotatesNeighbours: false, hasQkNorm: true },
};

/**
 * Writes a model as a GGUF file for engines that read only those: the same weights, with a tokenizer that names the ids (prompts are ids).
 *
 * @throws Error for an architecture, a rotation or biases that are not written here
 */
export function modelToGguf(path: string, hf: HfConfig, weights: WeightSource, scheme: GgufScheme): void {
  checkSupported(hf);
  writeGguf(path, metadata(hf), tensors(hf, weights, scheme));
}

function architectureOf(hf: HfConfig) {
  return ARCHITECTURES[hf.architectures[0] ?? ''];
}

function checkSupported(hf: HfConfig): void {
  if (architectureOf(hf) === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ');
    throw new Error(`A GGUF of ${hf.architectures.join(', ')} is not written here, only of ${known}.`);
  }
  if (hf.rope.ropeType !== 'default')
    throw new Error(`A GGUF with rope_type "${hf.rope.ropeType}" is not written here.`);
  if (hf.attentionBias || hf.mlpBias) throw new Error('A GGUF of a model with biases is not written here.');
}

function metadata(hf: HfConfig): Record<string, GgufValue> {
  const { name } = architectureOf(hf)!;
  const own: Record<string, GgufValue> = {
    vocab_size: { uint32: hf.vocabSize },
    context_length: { uint32: hf.maxPositionEmbeddings },
    embedding_length: { uint32: hf.hiddenSize },
    block_count: { uint32: hf.numHiddenLayers },
    feed_forward_length: { uint32: hf.intermediateSize },
    'attention.head_count': { uint32: hf.numAttentionHeads },
    'attention.head_count_kv': { uint32: hf.numKeyValueHeads },
    'attention.key_length': { uint32: hf.headDim },
    'attention.value_length': { uint32: hf.headDim },
    'attention.layer_norm_rms_epsilon': { float32: hf.rmsNormEps },
    'rope.dimension_count': { uint32: hf.headDim },
    'rope.freq_base': { float32: hf.rope.theta },
  };
  return {
    'general.architecture': { string: name },
    ...tokenizerMetadata(hf.vocabSize),
    ...Object.fromEntries(Object.entries(own).map(([key, value]) => [`${name}.${key}`, value])),
  };
}

/** llama.cpp's kinds of token. */
const TOKEN = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

/** A SentencePiece vocabulary of the least that llama.cpp takes: unknown, begin, end, the bytes; then names. */
function tokenizerMetadata(vocabSize: number): Record<string, GgufValue> {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const special = ['<unk>', '<s>', '</s>'];
  const first = special.length + bytes.length;
  const names = Array.from({ length: Math.max(0, vocabSize - first) }, (_, i) => `<${i}>`);
  const types = [TOKEN.unknown, TOKEN.control, TOKEN.control, ...bytes.map(() => TOKEN.byte)];
  return {
    'tokenizer.ggml.model': { string: 'llama' },
    'tokenizer.ggml.tokens': { strings: [...special, ...bytes, ...names] },
    'tokenizer.ggml.scores': { float32s: new Array<number>(first + names.length).fill(0) },
    'tokenizer.ggml.token_type': { int32s: [...types, ...names.map(() => TOKEN.normal)] },
    'tokenizer.ggml.unknown_token_id': { uint32: 0 },
    'tokenizer.ggml.bos_token_id': { uint32: 1 },
    'tokenizer.ggml.eos_token_id': { uint32: 2 },
  };
}

function tensors(hf: HfConfig, weights: WeightSource, scheme: GgufScheme): GgufTensor[] {
  const { rotatesNeighbours, hasQkNorm } = architectureOf(hf)!;
  const { hiddenSize, intermediateSize, headDim, vocabSize } = hf;
  const queries = hf.numAttentionHeads * headDim;
  const keys = hf.numKeyValueHeads * headDim;
  const tensor = (name: string, source: string, shape: number[], type: GgufType, reorderHeads = false): GgufTensor => ({
    name: `${name}.weight`,
    shape,
    type,
    read: () => {
      const values = toFloat32(weights.get(`${source}.weight`, shape));
      return encodeElements(reorderHeads ? interleaveHalves(values, headDim, hiddenSize) : values, type);
    },
  });
  const embeddingType = scheme === 'Q4_0' ? 'Q8_0' : scheme;
  const list = [
    tensor('token_embd', 'model.embed_tokens', [vocabSize, hiddenSize], embeddingType),
    tensor('output_norm', 'model.norm', [hiddenSize], 'F32'),
  ];
  if (!hf.tieWordEmbeddings) list.push(tensor('output', 'lm_head', [vocabSize, hiddenSize], embeddingType));
  for (let i = 0; i < hf.numHiddenLayers; i++) {
    const to = `blk.${i}`;
    const from = `model.layers.${i}`;
    const attention = `${from}.self_attn`;
    list.push(
      tensor(`${to}.attn_norm`, `${from}.input_layernorm`, [hiddenSize], 'F32'),
      tensor(`${to}.attn_q`, `${attention}.q_proj`, [queries, hiddenSize], scheme, rotatesNeighbours),
      tensor(`${to}.attn_k`, `${attention}.k_proj`, [keys, hiddenSize], scheme, rotatesNeighbours),
      tensor(`${to}.attn_v`, `${attention}.v_proj`, [keys, hiddenSize], scheme),
      tensor(`${to}.attn_output`, `${attention}.o_proj`, [hiddenSize, queries], scheme),
      tensor(`${to}.ffn_norm`, `${from}.post_attention_layernorm`, [hiddenSize], 'F32'),
      tensor(`${to}.ffn_gate`, `${from}.mlp.gate_proj`, [intermediateSize, hiddenSize], scheme),
      tensor(`${to}.ffn_up`, `${from}.mlp.up_proj`, [intermediateSize, hiddenSize], scheme),
      tensor(`${to}.ffn_down`, `${from}.mlp.down_proj`, [hiddenSize, intermediateSize], scheme),
    );
    if (!hasQkNorm) continue;
    list.push(
      tensor(`${to}.attn_q_norm`, `${attention}.q_norm`, [headDim], 'F32'),
      tensor(`${to}.attn_k_norm`, `${attention}.k_norm`, [headDim], 'F32'),
    );
  }
  return list;
}

/** Row i of a head's first half, then row i of its second half, and so on: what was apart by half a head becomes neighbours. */
function interleaveHalves(values: Float32Array, headDim: number, columns: number): Float32Array {
  const half = headDim / 2;
  const out = new Float32Array(values.length);
  for (let row = 0; row < values.length / columns; row++) {
    const head = row - (row % headDim);
    const within = row % headDim;
    const target = head + (within % half) * 2 + Math.floor(within / half);
    out.set(values.subarray(row * columns, (row + 1) * columns), target * columns);
  }
  return out;
}

function toFloat32({ ptr, dtype, shape }: TensorView): Float32Array {
  const length = shape.reduce((product, size) => product * size, 1);
  const address = ptr as Parameters<typeof toArrayBuffer>[0];
  switch (dtype) {
    case 'float32':
      return new Float32Array(toArrayBuffer(address, 0, length * 4).slice(0));
    case 'float16':
      return Float32Array.from(new Float16Array(toArrayBuffer(address, 0, length * 2)));
    case 'bfloat16': {
      const halves = new Uint16Array(toArrayBuffer(address, 0, length * 2));
      const bits = new Uint32Array(length);
      for (let i = 0; i < length; i++) bits[i] = halves[i]! << 16;
      return new Float32Array(bits.buffer);
    }
  }
}
