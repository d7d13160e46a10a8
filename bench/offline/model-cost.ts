import type { BaoConfig } from '../../src/config/bao-config.ts';
import { dtypeBytes } from '../../src/device/dtype.ts';

/** What a step of a dense decoder must read and multiply at the least. */
export interface ModelCost {
  /** Weights that every step reads once: all matrices but the embedding, which gives single rows, and the logits' matrix. */
  weightBytes: number;
  /** Floating point operations for one token through the layers; logits are only for tokens that are sampled. */
  flopsPerToken: number;
  /** Bytes of keys and values that a query reads whose sequence has so many tokens. */
  kvBytes(numTokens: number): number;
}

export function modelCost(config: BaoConfig): ModelCost {
  const { hf, dtype } = config.model;
  const { hiddenSize, intermediateSize, headDim, numAttentionHeads, numKeyValueHeads, numHiddenLayers } = hf;
  const attention = hiddenSize * headDim * (2 * numAttentionHeads + 2 * numKeyValueHeads);
  const layer = attention + 3 * hiddenSize * intermediateSize;
  const kvBytesPerToken = 2 * numKeyValueHeads * headDim * dtypeBytes(config.cache.kvCacheDtype);
  return {
    weightBytes: (numHiddenLayers * layer + hf.vocabSize * hiddenSize) * dtypeBytes(dtype),
    flopsPerToken: 2 * numHiddenLayers * layer,
    kvBytes: (numTokens) =>
      hf.slidingWindows.reduce(
        (sum, window) => sum + kvBytesPerToken * (window === 0 ? numTokens : Math.min(numTokens, window)),
        0,
      ),
  };
}
