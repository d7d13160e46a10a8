import type { DType } from '../device/dtype.ts';
import type { LayerContext } from '../layers/layer-context.ts';
import type { RotaryEmbeddings } from '../layers/rotary-embedding.ts';
import type { HfConfig } from './hf-config.ts';
import type { CausalLM } from './model.ts';

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
}

/** Builds a model and reads its weights. Throws an Error that names a tensor that is missing or misshapen. */
export type ModelFactory = (context: ModelContext) => CausalLM;
