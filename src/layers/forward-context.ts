import type { DevicePtr } from '../device/device.ts';

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
  /** i32 [numTokens]: places in the sequence, plus the model's `Model.positionOffset` of that sequence. */
  positions: DevicePtr;
  /** i32 [numSeqs]: tokens of each sequence, this step's included. */
  seqLens: DevicePtr;
  /** i32 [numSeqs + 1] */
  queryStartLoc: DevicePtr;
  /** The largest of seqLens. */
  maxSeqLen: number;
  /** i32 [numTokens]: which text of a pair a token belongs to, 0 or 1; 0 unless the model `Model.usesTokenTypes`. */
  tokenTypeIds?: DevicePtr;
  /** The group of a layer. */
  attention(layerName: string): AttentionMetadata;
}
