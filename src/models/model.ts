import type { DevicePtr } from '../device/device.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';

/** Where the step's tokens live in the paged cache, for the layers of one KV cache group. All arrays are i32 on the device. */
export interface AttentionMetadata {
  /** [numTokens] */
  slotMapping: DevicePtr;
  /** [numSeqs, ldBlockTable] */
  blockTables: DevicePtr;
  ldBlockTable: number;
}

/** The flat varlen batch of one step: prefill and decode tokens together, sequence after sequence. */
export interface ForwardContext {
  numTokens: number;
  numSeqs: number;
  /** i32 [numTokens]: places in the sequence, plus the model's {@link CausalLM.positionOffset} of that sequence. */
  positions: DevicePtr;
  /** i32 [numSeqs]: tokens of each sequence, this step's included. */
  seqLens: DevicePtr;
  /** i32 [numSeqs + 1] */
  queryStartLoc: DevicePtr;
  /** The largest of seqLens. */
  maxSeqLen: number;
  /** The group of a layer. */
  attention(layerName: string): AttentionMetadata;
}

/** A decoder-only language model on one device. Forward calls only enqueue; results are valid on the same stream. */
export interface CausalLM {
  readonly vocabSize: number;
  /** What each attention layer keeps, by layer name ("model.layers.0.self_attn"). */
  kvCacheSpecs(): Map<string, KvCacheSpec>;
  /** Gives each attention layer its cache. */
  bindKvCache(caches: Map<string, DevicePtr>): void;
  /**
   * What to add to the positions of a sequence, for models whose rotary embedding depends on the sequence's length (longrope, dynamic).
   * Decide it once, when the worker takes the request in, by the prompt's length: all keys of a sequence must be rotated alike, whatever
   * the chunks and the batch. Keys of different offsets differ, so the offset belongs in the prefix cache's extra keys. Absent: 0.
   */
  positionOffset?(numPromptTokens: number): number;
  /** Final hidden states, act [numTokens, hiddenSize], in the model's own workspace until the next forward. inputIds: i32 [numTokens]. */
  forward(inputIds: DevicePtr, context: ForwardContext): DevicePtr;
  /** Logits float32 [rows, vocabSize], in the model's own workspace, of act hidden [rows, hiddenSize]. rows <= maxLogitRows given at load. Valid until the next computeLogits or forward. */
  computeLogits(hidden: DevicePtr, rows: number): DevicePtr;
}
