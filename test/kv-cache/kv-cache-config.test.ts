import { describe, expect, test } from 'bun:test';
import {
  blocksPerRequest,
  estimateMaxModelLen,
  getKvCacheConfig,
  maxConcurrency,
} from '../../src/kv-cache/kv-cache-config.ts';
import type { KvCacheSpec } from '../../src/kv-cache/kv-cache-spec.ts';
import { range } from '../scheduler/fixtures.ts';

const PAGE = 1024;
const full: KvCacheSpec = {
  kind: 'full',
  blockSize: 16,
  numKvHeads: 2,
  headDim: 8,
  dtype: 'bfloat16',
  slidingWindow: 0,
  pageBytes: PAGE,
};
const sliding: KvCacheSpec = { ...full, kind: 'sliding-window', slidingWindow: 64 };

/** Layers by their specs: layer.0, layer.1, … */
const layers = (...specs: KvCacheSpec[]) => new Map(specs.map((spec, i) => [`layer.${i}`, spec]));
const times = (n: number, spec: KvCacheSpec) => Array.from({ length: n }, () => spec);

describe('getKvCacheConfig', () => {
  test('layers of one spec: one group, a tensor each', () => {
    const config = getKvCacheConfig(layers(full, full, full), 100 * 3 * PAGE + 17, { maxModelLen: 160 });
    expect(config.numBlocks).toBe(100);
    expect(config.groups).toEqual([{ layerNames: ['layer.0', 'layer.1', 'layer.2'], spec: full }]);
    expect(config.tensors).toEqual(range(3).map((i) => ({ bytes: 100 * PAGE, sharedBy: [`layer.${i}`] })));
  });

  test('two kinds: groups of equally many layers share tensors, the last one padded', () => {
    // Five sliding layers to one full one, as in Gemma 3: 2 full and 9 sliding.
    const specs = layers(...range(11).map((i) => (i % 6 === 5 || i === 10 ? full : sliding)));
    const config = getKvCacheConfig(specs, 100 * 2 * PAGE, { maxModelLen: 160 });
    expect(config.groups.map(({ spec }) => spec.kind).sort()).toEqual([
      'full',
      ...times(5, sliding).map((s) => s.kind),
    ]);
    expect(config.tensors.map(({ bytes }) => bytes)).toEqual([100 * PAGE, 100 * PAGE]);
    expect(config.tensors.flatMap(({ sharedBy }) => sharedBy).sort()).toEqual([...specs.keys()].sort());
    for (const { sharedBy } of config.tensors) {
      const groups = sharedBy.map((name) => config.groups.findIndex(({ layerNames }) => layerNames.includes(name)));
      expect(new Set(groups).size).toBe(groups.length);
    }
  });

  test('nearly equal counts are padded to one group each', () => {
    const config = getKvCacheConfig(layers(...times(9, full), ...times(10, sliding)), 1e6, { maxModelLen: 16 });
    expect(config.groups.map(({ layerNames }) => layerNames.length)).toEqual([9, 10]);
    expect(config.tensors).toHaveLength(10);
  });

  test('unequal pages can not share memory: one table, every layer its own tensor', () => {
    const wide = { ...sliding, numKvHeads: 4, pageBytes: 2 * PAGE };
    const config = getKvCacheConfig(layers(full, wide), 50 * 3 * PAGE, { maxModelLen: 160 });
    expect(config.numBlocks).toBe(50);
    expect(config.groups).toHaveLength(1);
    expect(config.groups[0]!.spec.kind).toBe('full');
    expect(config.tensors).toEqual([
      { bytes: 50 * PAGE, sharedBy: ['layer.0'] },
      { bytes: 100 * PAGE, sharedBy: ['layer.1'] },
    ]);
  });

  test('one request must fit beside the null block; the error names needs, means and what fits', () => {
    const sizing = { maxModelLen: 1600 };
    expect(getKvCacheConfig(layers(full), 101 * PAGE, sizing).numBlocks).toBe(101);
    expect(() => getKvCacheConfig(layers(full), 101 * PAGE - 1, sizing)).toThrow(
      'The KV cache of one request of max_model_len 1600 needs 101.00 KiB, but 100.00 KiB are available. ' +
        'The largest max_model_len that fits is 1584: lower --max-model-len (auto picks it), or raise --gpu-memory-utilization or --kv-cache-memory-bytes.',
    );
    expect(() => getKvCacheConfig(layers(full), PAGE, sizing)).toThrow('Not even one token fits');
  });

  test('an override sets the number of blocks, and is held to the same', () => {
    const sizing = { maxModelLen: 160, numBlocksOverride: 11 };
    expect(getKvCacheConfig(layers(full), 0, sizing).tensors[0]!.bytes).toBe(11 * PAGE);
    expect(() => getKvCacheConfig(layers(full), 1e9, { ...sizing, numBlocksOverride: 10 })).toThrow(
      '--num-gpu-blocks-override 10. The largest max_model_len that fits is 144',
    );
  });

  test('gives an encoder, which keeps nothing, no groups and no limit', () => {
    const config = getKvCacheConfig(new Map(), 0, { maxModelLen: 16 });
    expect(config).toEqual({ numBlocks: 1, groups: [], tensors: [] });
    expect(maxConcurrency(config, 16)).toBe(Number.POSITIVE_INFINITY);
    expect(estimateMaxModelLen(new Map(), 0, { maxModelLen: 512 })).toBe(512);
  });

  test('refuses what it can not lay out', () => {
    expect(() => getKvCacheConfig(layers(full, { ...sliding, blockSize: 32 }), 1e9, { maxModelLen: 16 })).toThrow(
      'different block sizes: 16, 32',
    );
  });
});

describe('sizes of a request', () => {
  const groups = [
    { layerNames: ['a'], spec: full },
    { layerNames: ['b'], spec: sliding },
  ];

  test('a window layer holds its window and one step, from anywhere in a block', () => {
    expect(blocksPerRequest(groups, { maxModelLen: 1600, maxNumBatchedTokens: 32 })).toBe(100 + 6 + 1);
    expect(blocksPerRequest(groups, { maxModelLen: 40, maxNumBatchedTokens: 32 })).toBe(3 + 3);
    expect(blocksPerRequest(groups, { maxModelLen: 1600 })).toBe(200);
  });

  test('the longest length that fits is the longest that getKvCacheConfig takes', () => {
    for (const specs of [layers(full), layers(full, sliding), layers(full, full, sliding)]) {
      for (const bytes of [0, PAGE, 5 * PAGE, 33_333, 200_000]) {
        const sizing = { maxNumBatchedTokens: 32 };
        const longest = estimateMaxModelLen(specs, bytes, sizing);
        if (longest > 0) getKvCacheConfig(specs, bytes, { ...sizing, maxModelLen: longest });
        expect(() => getKvCacheConfig(specs, bytes, { ...sizing, maxModelLen: longest + 1 })).toThrow('max_model_len');
      }
    }
    expect(estimateMaxModelLen(layers(full), 200 * PAGE, { maxModelLen: 100 })).toBe(100);
  });

  test('concurrency counts requests of full length', () => {
    const config = getKvCacheConfig(layers(full), 101 * PAGE, { maxModelLen: 1600 });
    expect(maxConcurrency(config, 1600)).toBe(1);
    expect(maxConcurrency(config, 400)).toBe(4);
  });
});
