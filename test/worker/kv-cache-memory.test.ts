import { describe, expect, test } from 'bun:test';
import type { BaoConfig } from '../../src/config/bao-config.ts';
import type { Device } from '../../src/device/device.ts';
import { getKvCacheConfig } from '../../src/kv-cache/kv-cache-config.ts';
import type { KvCacheSpec } from '../../src/kv-cache/kv-cache-spec.ts';
import { allocateKvCaches, availableKvCacheBytes, checkKvCacheFits } from '../../src/worker/kv-cache-memory.ts';

const GIB = 2 ** 30;
/** Two layers of a model whose tokens take 1 KiB each. */
const PAGE = 16 * 1024;
const layer: KvCacheSpec = {
  kind: 'full',
  blockSize: 16,
  numKvHeads: 2,
  headDim: 128,
  dtype: 'bfloat16',
  slidingWindow: 0,
  pageBytes: PAGE,
};
const specs = new Map([
  ['layer.0', layer],
  ['layer.1', layer],
]);

function setUp(
  cache: Partial<BaoConfig['cache']> = {},
  {
    maxModelLen = 4096,
    maxNumSeqs = 8,
    dataParallelSize = 1,
    type = 'cpu',
    freeBytes = 16 * GIB,
    totalBytes = 32 * GIB,
  } = {},
) {
  const config = {
    model: { maxModelLen },
    cache: { kvCacheMemoryBytes: null, gpuMemoryUtilization: 0.5, numGpuBlocksOverride: null, ...cache },
    parallel: { dataParallelSize },
    scheduler: { maxNumSeqs },
  } as unknown as BaoConfig;
  return { config, device: { type, memoryInfo: () => ({ freeBytes, totalBytes }) } as Device };
}

const available = (...args: Parameters<typeof setUp>) => {
  const { config, device } = setUp(...args);
  return availableKvCacheBytes(config, device, specs, 0);
};

describe('the KV cache takes', () => {
  test('what --kv-cache-memory-bytes says', () => {
    expect(available({ kvCacheMemoryBytes: 123_456_789 })).toBe(123_456_789);
  });

  test('on a CPU room for 8 requests of full length, at most 4 GiB', () => {
    const perRequest = (4096 / 16) * PAGE * 2;
    expect(available()).toBe(8 * perRequest);
    expect(available({}, { maxModelLen: 1_000_000 })).toBe(4 * GIB);
  });

  test('or for as many requests as may run at once, with 256 tokens each or as long as they may be', () => {
    const perRequest = (192 / 16) * PAGE * 2;
    expect(available({}, { maxModelLen: 192, maxNumSeqs: 64 })).toBe(64 * perRequest);
    expect(available({}, { maxNumSeqs: 256 })).toBe(256 * (256 / 16) * PAGE * 2);
    expect(available({}, { maxModelLen: 192, maxNumSeqs: 4 })).toBe(8 * perRequest);
  });

  test('but for one request of full length, even if that alone is more', () => {
    const maxModelLen = 3 * 2 ** 20;
    expect(available({}, { maxModelLen })).toBe((maxModelLen / 16) * PAGE * 2 + 2 * PAGE);
  });

  test('and never more than a core’s share of what --gpu-memory-utilization leaves of the free memory', () => {
    const small = { maxModelLen: 1_000_000, freeBytes: 4 * GIB };
    expect(available({}, small)).toBe(2 * GIB);
    expect(available({}, { ...small, dataParallelSize: 2 })).toBe(1 * GIB);
    expect(available({ gpuMemoryUtilization: 0.25 }, small)).toBe(1 * GIB);
  });

  test('on a GPU the share of all its memory, less what is used', () => {
    const gpu = { type: 'cuda', totalBytes: 80 * GIB, freeBytes: 60 * GIB };
    expect(available({ gpuMemoryUtilization: 0.9 }, gpu)).toBe(52 * GIB);
    expect(available({ gpuMemoryUtilization: 0.1 }, gpu)).toBe(0);
  });
});

describe('what is asked for', () => {
  const check = (...args: Parameters<typeof setUp>) => {
    const { config, device } = setUp(...args);
    const numBlocksOverride = config.cache.numGpuBlocksOverride;
    const bytes = config.cache.kvCacheMemoryBytes ?? 0;
    checkKvCacheFits(config, device, getKvCacheConfig(specs, bytes, { maxModelLen: 64, numBlocksOverride }));
  };

  test('may be as much as there is', () => {
    expect(() => check({ kvCacheMemoryBytes: 32 * GIB })).not.toThrow();
    expect(() => check({ kvCacheMemoryBytes: 16 * GIB }, { dataParallelSize: 2 })).not.toThrow();
  });

  test('is refused by its flag where it is more', () => {
    expect(() => check({ kvCacheMemoryBytes: 900 * GIB })).toThrow(
      '--kv-cache-memory-bytes 966367641600: a KV cache of 900.0 GiB is more than the 32.0 GiB of memory there are.',
    );
    expect(() => check({ kvCacheMemoryBytes: 17 * GIB }, { dataParallelSize: 2 })).toThrow(
      'a KV cache of 17.0 GiB for each of 2 engine cores is more than',
    );
    expect(() => check({ numGpuBlocksOverride: 2_000_000 })).toThrow(
      '--num-gpu-blocks-override 2000000: a KV cache of 61.0',
    );
  });
});

test('a cache that finds no room for its last layer holds nothing', () => {
  const held = new Set<number>();
  const device = (room: number) =>
    ({
      alloc(bytes: number) {
        if (held.size === room) throw new Error(`no ${bytes} bytes left`);
        held.add(held.size + 1);
        return held.size;
      },
      free: (ptr: number) => held.delete(ptr),
    }) as unknown as Device;
  const kvCache = getKvCacheConfig(specs, 64 * PAGE, { maxModelLen: 64, numBlocksOverride: null });
  expect(kvCache.tensors).toHaveLength(2);
  expect(() => allocateKvCaches(device(1), kvCache)).toThrow(`no ${32 * PAGE} bytes left`);
  expect(held.size).toBe(0);
  expect([...allocateKvCaches(device(2), kvCache)] as unknown[]).toEqual([
    ['layer.0', 1],
    ['layer.1', 2],
  ]);
});
