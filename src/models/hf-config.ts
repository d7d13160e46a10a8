import type { FloatDType } from '../device/dtype.ts';
import type { RopeParameters } from '../layers/rope-parameters.ts';

/** config.json of a decoder or an encoder, checked and with transformers' defaults filled in. */
export interface HfConfig {
  /** Every field as in the file, for what a model file reads beyond the common ones. */
  raw: Readonly<Record<string, unknown>>;
  architectures: string[];
  modelType: string;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  numKeyValueHeads: number;
  headDim: number;
  hiddenAct: string;
  rmsNormEps: number;
  maxPositionEmbeddings: number;
  /** Place of a sequence's first token among the position embeddings: RoBERTa's lie behind the padding id. */
  firstPosition: number;
  tieWordEmbeddings: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  /** Of the full attention layers. */
  rope: RopeParameters;
  /** Rotary embedding of each layer, null: none. Layers that rotate alike share one object. Length numHiddenLayers. */
  layerRopes: (RopeParameters | null)[];
  /** Window of each layer in tokens, 0: full attention. Length numHiddenLayers. */
  slidingWindows: number[];
  bosTokenId: number | null;
  eosTokenIds: number[];
  torchDtype: FloatDType;
}
