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
  /** i32 [numTokens] */
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
  /** Final hidden states, act [numTokens, hiddenSize], in the model's own workspace until the next forward. inputIds: i32 [numTokens]. */
  forward(inputIds: DevicePtr, context: ForwardContext): DevicePtr;
  /** Logits float32 [rows, vocabSize], in the model's own workspace, of act hidden [rows, hiddenSize]. rows <= maxLogitRows given at load. */
  computeLogits(hidden: DevicePtr, rows: number): DevicePtr;
}
