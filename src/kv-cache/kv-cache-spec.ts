import type { DType } from '../device/dtype.ts';

/** What one attention layer keeps per token. */
export interface KvCacheSpec {
  kind: 'full' | 'sliding-window';
  /** Tokens in a block. */
  blockSize: number;
  numKvHeads: number;
  headDim: number;
  dtype: DType;
  /** Tokens that a query sees, itself included; 0 for kind 'full'. */
  slidingWindow: number;
  /** Bytes of a block of this layer, keys and values (Device.kvBlockBytes). */
  pageBytes: number;
}

/** Layers that share one block table. All groups have the same page size and draw from one pool of block ids. */
export interface KvCacheGroup {
  layerNames: string[];
  spec: KvCacheSpec;
}

/** Memory of one physical tensor of `numBlocks` pages, used by one layer of each group. */
export interface KvCacheTensor {
  bytes: number;
  sharedBy: string[];
}

export interface KvCacheConfig {
  numBlocks: number;
  groups: KvCacheGroup[];
  tensors: KvCacheTensor[];
}
