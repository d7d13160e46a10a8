import type { ConfigFields } from './config-fields.ts';

/**
 * What transformers takes for a field that config.json leaves out, where a family differs from Llama.
 * Source: the configuration classes of transformers 5.
 */
export interface FamilyDefaults {
  maxPositionEmbeddings: number;
  rmsNormEps: number;
  ropeTheta: number;
  /** Rope base of sliding window layers, null: as the others. */
  ropeLocalTheta: number | null;
  hiddenAct: string;
  tieWordEmbeddings: boolean;
  /** null: as many as attention heads. */
  numKeyValueHeads: number | null;
  /** The field that gives a head's elements; those that are rotated where only a part of them is. */
  headDimField: string;
  /** null: hidden size / attention heads. */
  headDim: number | null;
  /** Tokens, null: no window. */
  slidingWindow: number | null;
  /** Whether the window counts only with `use_sliding_window`. */
  slidingWindowIsOptIn: boolean;
  /** Which layers have the window when `layer_types` is absent. */
  isSlidingLayer: (layer: number, fields: ConfigFields) => boolean;
  bosTokenId: number | null;
  eosTokenIds: number[];
  /** Whether positions are rotations; false: learned embeddings. */
  isRotary: boolean;
  /** Positions start behind `pad_token_id`, with this default of it; null: at 0. */
  paddingTokenId: number | null;
  /** The family's own names of common fields. */
  renamedFields: Readonly<Record<string, string>>;
}

const LLAMA: FamilyDefaults = {
  maxPositionEmbeddings: 2048,
  rmsNormEps: 1e-6,
  ropeTheta: 10_000,
  ropeLocalTheta: null,
  hiddenAct: 'silu',
  tieWordEmbeddings: false,
  numKeyValueHeads: null,
  headDimField: 'head_dim',
  headDim: null,
  slidingWindow: null,
  slidingWindowIsOptIn: false,
  isSlidingLayer: () => true,
  bosTokenId: 1,
  eosTokenIds: [2],
  isRotary: true,
  paddingTokenId: null,
  renamedFields: {},
};

const QWEN2: FamilyDefaults = {
  ...LLAMA,
  maxPositionEmbeddings: 32_768,
  slidingWindow: 4096,
  slidingWindowIsOptIn: true,
  isSlidingLayer: (layer, fields) => layer >= fields.nonNegativeInt('max_window_layers', 28),
  bosTokenId: null,
  eosTokenIds: [],
};

const GEMMA: FamilyDefaults = {
  ...LLAMA,
  maxPositionEmbeddings: 8192,
  hiddenAct: 'gelu_pytorch_tanh',
  tieWordEmbeddings: true,
  numKeyValueHeads: 4,
  headDim: 256,
  slidingWindow: 4096,
  bosTokenId: 2,
  eosTokenIds: [1],
};

const BERT: FamilyDefaults = {
  ...LLAMA,
  maxPositionEmbeddings: 512,
  hiddenAct: 'gelu',
  isRotary: false,
  bosTokenId: null,
  eosTokenIds: [],
};

const ROBERTA: FamilyDefaults = { ...BERT, paddingTokenId: 1 };

const FAMILIES: Readonly<Record<string, FamilyDefaults>> = {
  llama: LLAMA,
  bert: BERT,
  roberta: ROBERTA,
  'xlm-roberta': ROBERTA,
  modernbert: {
    ...BERT,
    maxPositionEmbeddings: 8192,
    isRotary: true,
    ropeTheta: 160_000,
    ropeLocalTheta: 10_000,
    slidingWindow: 128,
    isSlidingLayer: (layer, fields) => layer % fields.positiveInt('global_attn_every_n_layers', 3) !== 0,
    renamedFields: {
      global_rope_theta: 'rope_theta',
      local_rope_theta: 'rope_local_base_freq',
      local_attention: 'sliding_window',
    },
  },
  mistral: { ...LLAMA, maxPositionEmbeddings: 131_072, numKeyValueHeads: 8, slidingWindow: 4096 },
  mixtral: { ...LLAMA, maxPositionEmbeddings: 131_072, rmsNormEps: 1e-5, ropeTheta: 1_000_000, numKeyValueHeads: 8 },
  qwen2: QWEN2,
  qwen3: { ...QWEN2, headDim: 128 },
  qwen3_moe: { ...QWEN2, numKeyValueHeads: 4, isSlidingLayer: () => true },
  gpt_oss: {
    ...LLAMA,
    maxPositionEmbeddings: 131_072,
    rmsNormEps: 1e-5,
    ropeTheta: 150_000,
    numKeyValueHeads: 8,
    headDim: 64,
    slidingWindow: 128,
    isSlidingLayer: (layer) => layer % 2 === 0,
    bosTokenId: null,
    eosTokenIds: [],
  },
  deepseek_v3: {
    ...LLAMA,
    maxPositionEmbeddings: 4096,
    headDimField: 'qk_rope_head_dim',
    headDim: 64,
    bosTokenId: 0,
    eosTokenIds: [1],
  },
  phi3: { ...LLAMA, maxPositionEmbeddings: 4096, rmsNormEps: 1e-5, eosTokenIds: [32_000] },
  granite: LLAMA,
  olmo2: { ...LLAMA, rmsNormEps: 1e-5, bosTokenId: null, eosTokenIds: [50_279] },
  smollm3: {
    ...LLAMA,
    maxPositionEmbeddings: 32_768,
    ropeTheta: 2_000_000,
    tieWordEmbeddings: true,
    numKeyValueHeads: 4,
    slidingWindowIsOptIn: true,
    isSlidingLayer: (layer, fields) => !smolLm3Rotates(layer, fields),
    bosTokenId: 128_000,
    eosTokenIds: [128_001],
  },
  gemma: { ...GEMMA, numKeyValueHeads: null, slidingWindow: null },
  gemma2: { ...GEMMA, isSlidingLayer: (layer) => layer % 2 === 0 },
  gemma3_text: {
    ...GEMMA,
    maxPositionEmbeddings: 131_072,
    ropeTheta: 1_000_000,
    ropeLocalTheta: 10_000,
    isSlidingLayer: (layer, fields) => (layer + 1) % fields.positiveInt('sliding_window_pattern', 6) !== 0,
  },
};

/** Defaults of a `model_type`; Llama's for one that is not known here, as a plugin's model may be. */
export function familyDefaults(modelType: string): FamilyDefaults {
  return FAMILIES[modelType] ?? LLAMA;
}

/** SmolLM3 leaves rotation out of the layers whose entry in `no_rope_layers` is 0, every fourth by default. */
export function smolLm3Rotates(layer: number, fields: ConfigFields): boolean {
  const flags = fields.flagsOrNull('no_rope_layers');
  if (flags === null) return (layer + 1) % fields.positiveInt('no_rope_layer_interval', 4) !== 0;
  const flag = flags[layer];
  if (flag === undefined)
    throw fields.error('no_rope_layers', `has ${flags.length} entries; expected one for each layer`);
  return flag !== 0;
}
