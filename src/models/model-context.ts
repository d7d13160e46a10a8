import type { DType } from '../device/dtype.ts';
import type { LayerContext } from '../layers/layer-context.ts';
import type { RotaryEmbeddings } from '../layers/rotary-embedding.ts';
import type { HfConfig } from './hf-config.ts';
import type { CausalLM, PoolingModel } from './model.ts';

/** What a model is built from. */
export interface ModelContext extends LayerContext {
  readonly config: HfConfig;
  readonly rotaryEmbeddings: RotaryEmbeddings;
  readonly kvCacheDtype: DType;
  /** Tokens in a KV cache block. */
  readonly blockSize: number;
  /** Most tokens in a step. */
  readonly maxNumTokens: number;
  /** Most rows of logits at once. */
  readonly maxLogitRows: number;
  /** False: hidden states are all that is asked of a decoder, and its LM head stays on disk. */
  readonly lmHead: boolean;
}

/** Builds a model and reads its weights. Throws an Error that names a tensor that is missing or misshapen. */
export type ModelFactory = (context: ModelContext) => CausalLM;

/** A head for classes made of the LM head's rows of some tokens, by vLLM's names of ways. */
export interface ScoreTokens {
  /** One class, the second token's probability beside the first's; or a class for each token. */
  method: 'from_2_way_softmax' | 'no_post_processing';
  ids: number[];
}

/** What a model that is pooled makes of its hidden states. */
export interface PooledAs {
  /** Embeddings, or classes by a head. */
  convert: 'embed' | 'classify';
  /** Names of the classes; empty for embeddings. */
  labels: string[];
  /** null: the head for classes is the checkpoint's own. */
  scoreTokens: ScoreTokens | null;
}

/** The same for a model that is pooled. */
export type PoolingModelFactory = (context: ModelContext, pooledAs: PooledAs) => PoolingModel;
