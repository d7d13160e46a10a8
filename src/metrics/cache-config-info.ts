import { Gauge, type Registry } from 'prom-client';
import type { BaoConfig } from '../config/bao-config.ts';

/** Labels of vLLM's `cache_config_info` for features that this server does not have; their value is what vLLM shows when such a feature is off. */
const ABSENT = {
  cache_hit_alignment_tokens: 'None',
  effective_attention_block_size: 'None',
  enable_mamba_shared_prefix_checkpoint: 'False',
  is_attention_free: 'False',
  kv_cache_dtype_skip_layers: '[]',
  kv_cache_layout: 'None',
  kv_offloading_backend: 'None',
  kv_offloading_size: 'None',
  kv_sharing_fast_prefill: 'False',
  mamba_block_size: 'None',
  mamba_cache_dtype: 'auto',
  mamba_cache_mode: 'none',
  mamba_page_size_padded: 'None',
  mamba_ssm_cache_dtype: 'auto',
  num_cpu_blocks: 'None',
  prefix_cache_retention_interval: 'None',
  prefix_match_unit: 'None',
  replayssm_buffer_len: 'None',
  skip_page_size_padded: 'False',
  swa_bounded_replay: 'False',
  use_kda_recoverssm: 'False',
  use_replayssm: 'False',
} as const;

/** The value 1 with the cache's configuration as labels, written as Python writes values (None, True), for dashboards made for vLLM. */
export function defineCacheConfigInfo(registry: Registry, config: BaoConfig, numEngines: number): void {
  const { cache, model } = config;
  const labels: Record<string, string> = {
    ...ABSENT,
    _block_size_resolved: 'True',
    block_size: String(cache.blockSize),
    cache_dtype: cache.kvCacheDtype,
    enable_prefix_caching: python(cache.enablePrefixCaching),
    gpu_memory_utilization: String(cache.gpuMemoryUtilization),
    hash_block_size: String(cache.blockSize),
    kv_cache_max_concurrency: python(concurrency(config)),
    kv_cache_memory_bytes: python(cache.kvCacheMemoryBytes),
    kv_cache_size_tokens: python(sizeTokens(config)),
    num_gpu_blocks: python(cache.numGpuBlocks ?? null),
    num_gpu_blocks_override: python(cache.numGpuBlocksOverride),
    prefix_caching_hash_algo: 'sha256',
    sliding_window: python(Math.max(0, ...model.hf.slidingWindows) || null),
    user_specified_block_size: 'False',
  };
  const gauge = new Gauge({
    name: 'vllm:cache_config_info',
    help: 'Configuration of the KV cache.',
    labelNames: [...Object.keys(labels), 'engine'],
    aggregator: 'max',
    registers: [registry],
  });
  for (let engine = 0; engine < numEngines; engine++) gauge.set({ ...labels, engine: String(engine) }, 1);
}

function sizeTokens({ cache }: BaoConfig): number | null {
  return cache.numGpuBlocks === undefined ? null : cache.numGpuBlocks * cache.blockSize;
}

/** Requests of the greatest length that the cache holds at once. */
function concurrency(config: BaoConfig): number | null {
  const tokens = sizeTokens(config);
  return tokens === null ? null : Math.round((tokens / config.model.maxModelLen) * 100) / 100;
}

function python(value: number | boolean | null): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  return String(value);
}
