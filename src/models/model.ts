import type { DevicePtr } from '../device/device.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { PoolerHead } from '../layers/pooler-head.ts';

/** Tokens in, hidden states out, on one device. Forward calls only enqueue; results are valid on the same stream. */
export interface Model {
  /** What each attention layer keeps, by layer name ("model.layers.0.self_attn"); empty for an encoder, which keeps nothing. */
  kvCacheSpecs(): Map<string, KvCacheSpec>;
  /** Gives each attention layer its cache. */
  bindKvCache(caches: Map<string, DevicePtr>): void;
  /**
   * What to add to the positions of a sequence, for models whose rotary embedding depends on the sequence's length (longrope, dynamic),
   * or whose positions do not start at 0. Decide it once, when the worker takes the request in, by the prompt's length: all keys of a
   * sequence must be rotated alike, whatever the chunks and the batch. Keys of different offsets differ, so the offset belongs in the
   * prefix cache's extra keys. Absent: 0.
   */
  positionOffset?(numPromptTokens: number): number;
  /** The forward pass reads {@link ForwardContext.tokenTypeIds}. Absent: it does not. */
  readonly usesTokenTypes?: boolean;
  /** Final hidden states, act [numTokens, hiddenSize], in the model's own workspace until the next forward. inputIds: i32 [numTokens]. */
  forward(inputIds: DevicePtr, context: ForwardContext): DevicePtr;
}

/** A decoder-only language model. */
export interface CausalLM extends Model {
  readonly vocabSize: number;
  /** Logits float32 [rows, vocabSize], in the model's own workspace, of act hidden [rows, hiddenSize]. rows <= maxLogitRows given at load. Valid until the next computeLogits or forward. */
  computeLogits(hidden: DevicePtr, rows: number): DevicePtr;
}

/** A model whose hidden states become one vector for a sequence: an embedding, or logits of classes. */
export interface PoolingModel extends Model {
  /** null: the pooled hidden state itself is the answer. */
  head: PoolerHead | null;
}
