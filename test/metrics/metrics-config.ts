import type { BaoConfig } from '../../src/config/bao-config.ts';

/** The parts of a configuration that metrics read. */
export function metricsConfig(
  changes: { dataParallelSize?: number; disableLogStats?: boolean; numSpeculativeTokens?: number } = {},
): BaoConfig {
  const { numSpeculativeTokens } = changes;
  const config = {
    model: { servedModelName: ['demo', 'alias'], maxModelLen: 2048, hf: { slidingWindows: [0, 0] } },
    cache: {
      blockSize: 16,
      kvCacheDtype: 'float32',
      enablePrefixCaching: true,
      gpuMemoryUtilization: 0.9,
      kvCacheMemoryBytes: null,
      numGpuBlocks: 640,
      numGpuBlocksOverride: null,
    },
    speculative: numSpeculativeTokens === undefined ? null : { method: 'ngram', numSpeculativeTokens },
    lora: { enableLora: true, maxLoras: 2 },
    parallel: { dataParallelSize: changes.dataParallelSize ?? 1 },
    observability: { disableLogStats: changes.disableLogStats ?? false },
  };
  return config as unknown as BaoConfig;
}
