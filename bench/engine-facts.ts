import type { BaoConfig } from '../src/config/bao-config.ts';

/** What of an engine's configuration decides how fast it is, as results have it. */
export interface EngineFacts {
  model: string;
  /** "none": weights as dtype says. */
  quantization: string;
  dtype: string;
  kv_cache_dtype: string;
}

export function engineFacts({ model, cache }: BaoConfig): EngineFacts {
  return {
    model: model.model,
    quantization: model.quantization ?? 'none',
    dtype: model.dtype,
    kv_cache_dtype: cache.kvCacheDtype,
  };
}

/** "demo, bfloat16, KV cache bfloat16" */
export function describeEngine({ model, quantization, dtype, kv_cache_dtype }: EngineFacts): string {
  return `${model}, ${quantization === 'none' ? dtype : quantization}, KV cache ${kv_cache_dtype}`;
}
