import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import type { BaoConfig } from '../../src/config/bao-config.ts';
import { openCpuLibrary } from '../../src/device/cpu-library.ts';
import { dtypeBytes } from '../../src/device/dtype.ts';
import { isQuantizationScheme, LM_HEAD_SCHEME, QUANTIZATION_CODES } from '../../src/device/quantization-scheme.ts';
import { isJsonObject } from '../../src/models/config-fields.ts';

/** What a step of a dense decoder must read and multiply at the least. */
export interface ModelCost {
  /** Weights that every step reads once: all matrices but the embedding, which gives single rows, and the logits' matrix. */
  weightBytes: number;
  /** Floating point operations for one token through the layers; logits are only for tokens that are sampled. */
  flopsPerToken: number;
  /** Bytes of keys and values that a query reads whose sequence has so many tokens. */
  kvBytes(numTokens: number): number;
}

/** Rows and columns of a matrix. */
type Shape = readonly [n: number, k: number];

export async function modelCost(config: BaoConfig): Promise<ModelCost> {
  const { hf } = config.model;
  const { hiddenSize, intermediateSize, headDim, numAttentionHeads, numKeyValueHeads, numHiddenLayers } = hf;
  const layer: readonly Shape[] = [
    [headDim * (numAttentionHeads + 2 * numKeyValueHeads), hiddenSize],
    [hiddenSize, headDim * numAttentionHeads],
    [2 * intermediateSize, hiddenSize],
    [hiddenSize, intermediateSize],
  ];
  const { bytesOfLinear, bytesOfLMHead } = await weightBytes(config);
  const layerBytes = layer.reduce((sum, shape) => sum + bytesOfLinear(shape), 0);
  const layerNumbers = layer.reduce((sum, [n, k]) => sum + n * k, 0);
  const kvBytesPerToken = 2 * numKeyValueHeads * headDim * dtypeBytes(config.cache.kvCacheDtype);
  return {
    weightBytes: numHiddenLayers * layerBytes + bytesOfLMHead([hf.vocabSize, hiddenSize]),
    flopsPerToken: 2 * numHiddenLayers * layerNumbers,
    kvBytes: (numTokens) =>
      hf.slidingWindows.reduce(
        (sum, window) => sum + kvBytesPerToken * (window === 0 ? numTokens : Math.min(numTokens, window)),
        0,
      ),
  };
}

/** Bytes of matrices as the kernels keep them; a plugin's quantization counts as none. */
async function weightBytes({ model }: BaoConfig) {
  const plain = ([n, k]: Shape) => n * k * dtypeBytes(model.dtype);
  const isFp8Checkpoint = isJsonObject(model.hf.raw.quantization_config);
  const scheme = isFp8Checkpoint ? 'fp8' : model.quantization;
  if (!isQuantizationScheme(scheme)) return { bytesOfLinear: plain, bytesOfLMHead: plain };
  const library = openCpuLibrary(await ensureCpuLibrary({ quiet: true }));
  const quantized =
    (code: number) =>
    ([n, k]: Shape) =>
      library.bao_quantized_linear_bytes(n, k, code);
  return {
    bytesOfLinear: quantized(QUANTIZATION_CODES[scheme]),
    // Checkpoints leave theirs as it is.
    bytesOfLMHead: isFp8Checkpoint ? plain : quantized(QUANTIZATION_CODES[LM_HEAD_SCHEME]),
  };
}
