// biome-ignore-all lint/complexity/useLiteralKeys: private fields are reached by name, which only brackets may
import { describe, expect, test } from 'bun:test';
import { KVCacheManager } from '../../src/kv-cache/kv-cache-manager.ts';
import type { Request } from '../../src/scheduler/request.ts';
import { kvConfig, makeRequest, range } from '../scheduler/fixtures.ts';

function manager(numBlocks: number, windows = [0], enablePrefixCaching = true): KVCacheManager {
  return new KVCacheManager(kvConfig(numBlocks, 4, windows), { enablePrefixCaching, maxModelLen: 64 });
}

/** Admits a request with what the cache has of it and computes all its tokens. */
function compute(kv: KVCacheManager, request: Request): { numHitTokens: number; blockIds: number[][] | null } {
  const hit = kv.getComputedBlocks(request);
  const numHitTokens = hit?.numTokens ?? 0;
  const blockIds = kv.allocateSlots(request, request.numTokens - numHitTokens, { hit });
  if (blockIds !== null) request.numComputedTokens = request.numTokens;
  return { numHitTokens, blockIds };
}

describe('KVCacheManager', () => {
  test('grows a table block by block and says what is new', () => {
    const kv = manager(10);
    const request = makeRequest(range(6));
    expect(kv.allocateSlots(request, 6)).toEqual([[1, 2]]);
    request.numComputedTokens = 6;
    expect(kv.allocateSlots(request, 2)).toEqual([[]]);
    request.numComputedTokens = 8;
    expect(kv.allocateSlots(request, 1)).toEqual([[3]]);
    expect(kv.usage).toBeCloseTo(3 / 9);
    kv.free(request);
    expect(kv.numFreeBlocks).toBe(9);
  });

  test('refuses what does not fit, and takes nothing', () => {
    const kv = manager(4);
    const [a, b] = [makeRequest(range(8)), makeRequest(range(8, 50))];
    expect(compute(kv, a!).blockIds).toEqual([[1, 2]]);
    expect(compute(kv, b!).blockIds).toBeNull();
    expect(kv.allocateSlots(b!, 4, { numReservedBlocks: 1 })).toBeNull();
    expect(kv.numFreeBlocks).toBe(1);
    expect(kv.allocateSlots(b!, 4)).toEqual([[3]]);
  });

  test('makes room for lookahead, up to the longest length', () => {
    const kv = manager(30);
    const [a, b] = [makeRequest(range(4)), makeRequest(range(64))];
    expect(kv.allocateSlots(a!, 4, { numLookaheadTokens: 5 })![0]).toHaveLength(3);
    expect(kv.allocateSlots(b!, 64, { numLookaheadTokens: 5 })![0]).toHaveLength(16);
  });

  test('shares full blocks of a common prefix, from the moment they are scheduled', () => {
    const kv = manager(20);
    const first = makeRequest(range(10));
    const second = makeRequest([...range(9), 99]);
    expect(compute(kv, first)).toEqual({ numHitTokens: 0, blockIds: [[1, 2, 3]] });
    expect(compute(kv, second)).toEqual({ numHitTokens: 8, blockIds: [[1, 2, 4]] });
    kv.free(first);
    expect(kv.numFreeBlocks).toBe(19 - 3);
    kv.free(second);
    expect(kv.numFreeBlocks).toBe(19);
  });

  test('leaves at least the last token to compute', () => {
    const kv = manager(20);
    compute(kv, makeRequest(range(8)));
    expect(kv.getComputedBlocks(makeRequest(range(8)))!.numTokens).toBe(4);
    expect(kv.getComputedBlocks(makeRequest(range(9)))!.numTokens).toBe(8);
    expect(kv.getComputedBlocks(makeRequest(range(1)))!.numTokens).toBe(0);
  });

  test('shares nothing between salts or adapters, and nothing at all when it is off', () => {
    const kv = manager(20);
    compute(kv, makeRequest(range(9)));
    const others = [{ cacheSalt: 's' }, { lora: { id: 1, name: 'l', path: '/l' } }, { positionOffset: 9 }];
    for (const init of others) expect(kv.getComputedBlocks(makeRequest(range(9), {}, init))!.numTokens).toBe(0);
    expect(kv.getComputedBlocks(makeRequest(range(9)))!.numTokens).toBe(8);
    const off = manager(20, [0], false);
    compute(off, makeRequest(range(9)));
    expect(off.getComputedBlocks(makeRequest(range(9)))).toBeNull();
  });

  test('finds output too, once its tokens are known', () => {
    const kv = manager(20);
    const request = makeRequest(range(7));
    compute(kv, request);
    // The eighth token is in flight while its slot is computed.
    kv.allocateSlots(request, 1);
    request.numComputedTokens = 8;
    expect(kv.getComputedBlocks(makeRequest(range(9)))!.numTokens).toBe(4);
    request.appendToken(7);
    kv.cacheBlocks(request, request.numComputedTokens);
    expect(kv.getComputedBlocks(makeRequest(range(9)))!.numTokens).toBe(8);
  });

  test('evicts the end of a sequence before its start', () => {
    const kv = manager(6);
    const first = makeRequest(range(17));
    compute(kv, first);
    kv.free(first);
    // The fifth block was never full, so it went first; then one cached block.
    compute(kv, makeRequest(range(8, 100)));
    expect(kv.getComputedBlocks(makeRequest(range(17)))!.numTokens).toBe(12);
  });

  test('counts cached blocks that nobody holds among those a hit takes', () => {
    const kv = manager(4);
    const first = makeRequest(range(8));
    compute(kv, first);
    kv.free(first);
    expect(compute(kv, makeRequest([...range(8), 1, 2, 3, 4, 5])).blockIds).toBeNull();
    expect(compute(kv, makeRequest([...range(8), 1])).blockIds).toEqual([[1, 2, 3]]);
    expect(kv.numFreeBlocks).toBe(0);
  });

  test('frees blocks that fell out of the window, and still finds them', () => {
    const kv = manager(20, [6]);
    const request = makeRequest(range(16));
    compute(kv, request);
    expect(kv.usage).toBeCloseTo(4 / 19);
    // The query at position 16 reads 11 and later: blocks 0 and 1 are dead.
    expect(kv.allocateSlots(request, 1)).toEqual([[5]]);
    expect(kv.usage).toBeCloseTo(3 / 19);
    expect(compute(kv, makeRequest(range(9)))).toEqual({ numHitTokens: 8, blockIds: [[1, 2, 6]] });
    // Behind 12 tokens only the blocks that the window reaches are taken.
    expect(compute(kv, makeRequest([...range(12), 99]))).toEqual({ numHitTokens: 12, blockIds: [[0, 2, 3, 7]] });
  });

  test('with several groups a hit is the longest prefix valid for all', () => {
    const kv = manager(40, [0, 6]);
    const first = makeRequest(range(17));
    const ids = compute(kv, first).blockIds!;
    kv.free(first);
    const pool = kv['pool'];
    const hit = () => kv.getComputedBlocks(makeRequest(range(17)))!.numTokens;
    expect(hit()).toBe(16);
    // Without the window group's third block neither 16 nor 12 tokens can be taken, but 8 can.
    pool['evict'](ids[1]![2]!);
    expect(hit()).toBe(8);
    pool['evict'](ids[0]![1]!);
    expect(hit()).toBe(4);
  });

  test('a prefix that one group shortened is asked of the others again', () => {
    // Windows that read back over one block and over two.
    const kv = manager(40, [3, 9]);
    const first = makeRequest(range(17));
    const ids = compute(kv, first).blockIds!;
    kv.free(first);
    kv['pool']['evict'](ids[0]![2]!);
    kv['pool']['evict'](ids[1]![3]!);
    // 16 is good for the first group, 12 for the second, 8 for both.
    expect(kv.getComputedBlocks(makeRequest(range(17)))!.numTokens).toBe(8);
  });

  test('reset forgets prefixes only when nothing runs', () => {
    const kv = manager(20);
    const request = makeRequest(range(9));
    compute(kv, request);
    expect(kv.resetPrefixCache()).toBe(false);
    kv.free(request);
    expect(kv.resetPrefixCache()).toBe(true);
    expect(kv.getComputedBlocks(request)!.numTokens).toBe(0);
  });
});
