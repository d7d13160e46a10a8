import type { BaoConfig } from '../config/bao-config.ts';
import type { Device, DevicePtr } from '../device/device.ts';
import { MemoryScope } from '../device/memory-scope.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';

/** On a CPU the memory is everyone's: without being told otherwise the cache holds this many requests of full length … */
const DEFAULT_CPU_FULL_LENGTH_REQUESTS = 8;
/** … or, where that is more, as many as may run at once with this many tokens each: a small limit of the length must not make them wait. */
const DEFAULT_CPU_TOKENS_EACH = 256;
/** It takes no more than this. */
const MAX_DEFAULT_CPU_BYTES = 4 * 2 ** 30;

/**
 * Bytes that the KV cache of this worker may take. `--kv-cache-memory-bytes` decides if given; on a GPU `--gpu-memory-utilization` of the
 * device less what is used and what is kept for adapters; on a CPU room for 8 requests of full length, or for `--max-num-seqs` of up to 256 tokens, at most
 * 4 GiB and at most the utilization's share of what is free.
 */
export function availableKvCacheBytes(
  config: BaoConfig,
  device: Device,
  specs: Map<string, KvCacheSpec>,
  loraBytes = 0,
): number {
  const { kvCacheMemoryBytes, gpuMemoryUtilization } = config.cache;
  if (kvCacheMemoryBytes !== null) return kvCacheMemoryBytes;
  const { freeBytes, totalBytes } = device.memoryInfo();
  if (device.type !== 'cpu')
    return Math.max(0, Math.floor(totalBytes * gpuMemoryUtilization - (totalBytes - freeBytes) - loraBytes));

  const bytesOfRequest = (numTokens: number) =>
    [...specs.values()].reduce((sum, spec) => sum + Math.ceil(numTokens / spec.blockSize) * spec.pageBytes, 0);
  const { maxModelLen } = config.model;
  const bytesPerRequest = bytesOfRequest(maxModelLen);
  const bytesAtOnce = bytesOfRequest(Math.min(maxModelLen, DEFAULT_CPU_TOKENS_EACH)) * config.scheduler.maxNumSeqs;
  const share = Math.max(
    0,
    Math.floor((freeBytes * gpuMemoryUtilization) / config.parallel.dataParallelSize) - loraBytes,
  );
  // One request of full length must fit even when it alone takes more than the default limit.
  const wanted = Math.max(
    Math.min(Math.max(bytesPerRequest * DEFAULT_CPU_FULL_LENGTH_REQUESTS, bytesAtOnce), MAX_DEFAULT_CPU_BYTES),
    bytesPerRequest + [...specs.values()].reduce((sum, spec) => sum + spec.pageBytes, 0),
  );
  return Math.min(wanted, share);
}

/**
 * The system gives memory that it does not have, and ends the process when it is used: what an operator asks for by size or by blocks is held
 * against what there is.
 *
 * @throws Error that names the flag
 */
export function checkKvCacheFits(
  config: BaoConfig,
  device: Pick<Device, 'memoryInfo' | 'type'>,
  kvCache: KvCacheConfig,
): void {
  const { kvCacheMemoryBytes, numGpuBlocksOverride } = config.cache;
  const bytes = kvCache.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const numSharing = device.type === 'cpu' ? config.parallel.dataParallelSize : 1;
  const { totalBytes } = device.memoryInfo();
  if (bytes * numSharing <= totalBytes) return;
  const flag =
    numGpuBlocksOverride === null
      ? `--kv-cache-memory-bytes ${kvCacheMemoryBytes}`
      : `--num-gpu-blocks-override ${numGpuBlocksOverride}`;
  const cores = numSharing === 1 ? '' : ` for each of ${numSharing} engine cores`;
  throw new Error(
    `${flag}: a KV cache of ${gibibytes(bytes)}${cores} is more than the ${gibibytes(totalBytes)} of memory there are.`,
  );
}

/** The memory of each layer's cache, by layer. Where there is not enough for all of them, none is kept and the device's error is thrown. */
export function allocateKvCaches(device: Device, kvCache: KvCacheConfig): Map<string, DevicePtr> {
  const memory = new MemoryScope(device);
  const caches = new Map<string, DevicePtr>();
  try {
    for (const tensor of kvCache.tensors) {
      const ptr = memory.alloc(tensor.bytes, 'KV cache');
      for (const layer of tensor.sharedBy) caches.set(layer, ptr);
    }
  } catch (error) {
    memory.freeAll();
    throw error;
  }
  return caches;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
