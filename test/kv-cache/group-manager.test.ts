import { describe, expect, test } from 'bun:test';
import { HASH_WORDS } from '../../src/kv-cache/block-hashes.ts';
import { BlockPool } from '../../src/kv-cache/block-pool.ts';
import { createGroupManager } from '../../src/kv-cache/group-manager.ts';
import { spec } from '../scheduler/fixtures.ts';

const HASHES = Int32Array.from({ length: 10 * HASH_WORDS }, (_, i) => i);

/** The longest cached prefix when only `cached` of 8 blocks of 4 tokens are in the pool. */
function longest(window: number, cached: number[], maxBlocks = 8): number {
  const pool = new BlockPool(16);
  for (const i of cached) pool.cache(pool.allocate(), HASHES, i, 0);
  return createGroupManager(spec(4, window), 0, pool).longestCachedPrefix(HASHES, maxBlocks);
}

describe('full attention', () => {
  test('needs every block from the start', () => {
    expect(longest(0, [0, 1, 2, 4])).toBe(3);
    expect(longest(0, [1, 2])).toBe(0);
    expect(longest(0, [0, 1, 2], 2)).toBe(2);
  });

  test('never skips a block', () => {
    expect(createGroupManager(spec(4), 0, new BlockPool(2)).numSkippedBlocks(1000)).toBe(0);
  });
});

describe('sliding window', () => {
  test('needs the blocks that the next query reads', () => {
    // Window 6 reads 5 tokens back: two blocks of 4.
    expect(longest(6, [5, 6])).toBe(7);
    expect(longest(6, [3, 4, 6])).toBe(5);
    // Window 5 reads 4 back: one block.
    expect(longest(5, [3])).toBe(4);
    expect(longest(5, [3, 7], 7)).toBe(4);
  });

  test('a prefix shorter than the window needs all of its blocks', () => {
    expect(longest(20, [0, 1])).toBe(2);
    expect(longest(20, [1, 2])).toBe(0);
  });

  test('a window of one token reads no other: any prefix will do', () => {
    expect(longest(1, [])).toBe(8);
  });

  test('skips blocks wholly before the window', () => {
    const manager = createGroupManager(spec(4, 6), 0, new BlockPool(2));
    // The query at position n reads n - 5 and later.
    expect([0, 5, 8, 9, 12, 13].map((n) => manager.numSkippedBlocks(n))).toEqual([0, 0, 0, 1, 1, 2]);
  });
});
