import { beforeEach, describe, expect, test } from 'bun:test';
import { HASH_WORDS } from '../../src/kv-cache/block-hashes.ts';
import { BlockPool, NULL_BLOCK } from '../../src/kv-cache/block-pool.ts';

/** Hashes 0..99: all that differ in one word fall into the same bucket, so that chains are long. */
const HASHES = Int32Array.from({ length: 100 * HASH_WORDS }, (_, i) => (i % HASH_WORDS === 2 ? i : 7));

let pool: BlockPool;
beforeEach(() => {
  pool = new BlockPool(6);
});

const allocate = (n: number) => Array.from({ length: n }, () => pool.allocate());

/** Block i of the list holds content i. */
function cacheInOrder(blocks: readonly number[]): void {
  for (const [i, block] of blocks.entries()) pool.cache(block, HASHES, i, 0);
}

describe('BlockPool', () => {
  test('gives out unused blocks in rising order, never the null block', () => {
    expect(pool.numFreeBlocks).toBe(5);
    expect(allocate(5)).toEqual([1, 2, 3, 4, 5]);
    expect(pool.numFreeBlocks).toBe(0);
    expect(() => pool.allocate()).toThrow('no KV block is free');
  });

  test('reuses a block without content before it touches a new one', () => {
    const [a] = allocate(2);
    pool.free(a!);
    expect(pool.allocate()).toBe(a!);
    expect(pool.allocate()).toBe(3);
  });

  test('evicts cached content last, the oldest first', () => {
    const blocks = allocate(3);
    cacheInOrder(blocks);
    pool.free(2);
    pool.free(1);
    pool.free(3);
    expect(allocate(2)).toEqual([4, 5]);
    expect([0, 1, 2].map((i) => pool.lookup(HASHES, i, 0))).toEqual([1, 2, 3]);
    expect(pool.allocate()).toBe(2);
    expect([0, 1, 2].map((i) => pool.lookup(HASHES, i, 0))).toEqual([1, NULL_BLOCK, 3]);
    expect(allocate(2)).toEqual([1, 3]);
  });

  test('a touched block leaves the free list, wherever it is in it, and comes back as the newest', () => {
    const blocks = allocate(5);
    cacheInOrder(blocks);
    for (const block of blocks) pool.free(block);
    for (const block of [3, 1, 5]) pool.touch(block);
    expect(pool.numFreeBlocks).toBe(2);
    for (const block of [5, 1, 3]) pool.free(block);
    expect(allocate(5)).toEqual([2, 4, 5, 1, 3]);
  });

  test('a shared block is free when its last owner has gone', () => {
    const block = pool.allocate();
    pool.touch(block);
    pool.free(block);
    expect([pool.refCount(block), pool.numFreeBlocks]).toEqual([1, 4]);
    pool.free(block);
    expect([pool.refCount(block), pool.numFreeBlocks]).toEqual([0, 5]);
    expect(() => pool.free(block)).toThrow('freed without an owner');
    expect(() => pool.free(NULL_BLOCK)).toThrow('freed without an owner');
  });

  test('finds content by hash and group', () => {
    const [a, b] = allocate(2);
    pool.cache(a!, HASHES, 4, 0);
    pool.cache(b!, HASHES, 4, 1);
    expect([0, 1, 2].map((group) => pool.lookup(HASHES, 4, group))).toEqual([a!, b!, NULL_BLOCK]);
    expect(pool.lookup(HASHES, 5, 0)).toBe(NULL_BLOCK);
    expect(() => pool.cache(a!, HASHES, 6, 0)).toThrow('cached already');
  });

  test('one of two blocks with the same content may go', () => {
    for (const block of allocate(5)) pool.cache(block, HASHES, block <= 2 ? 0 : block, 0);
    expect([1, 2]).toContain(pool.lookup(HASHES, 0, 0));
    pool.free(2);
    expect(pool.allocate()).toBe(2);
    expect(pool.lookup(HASHES, 0, 0)).toBe(1);
    pool.free(1);
    expect(pool.allocate()).toBe(1);
    expect(pool.lookup(HASHES, 0, 0)).toBe(NULL_BLOCK);
    expect([3, 4, 5].map((i) => pool.lookup(HASHES, i, 0))).toEqual([3, 4, 5]);
  });

  test('reset forgets content, unless a block is in use', () => {
    const blocks = allocate(3);
    cacheInOrder(blocks);
    pool.free(1);
    expect(pool.reset()).toBe(false);
    expect(pool.lookup(HASHES, 0, 0)).toBe(1);
    for (const block of [2, 3]) pool.free(block);
    expect(pool.reset()).toBe(true);
    expect([0, 1, 2].map((i) => pool.lookup(HASHES, i, 0))).toEqual([0, 0, 0]);
    expect(allocate(5).sort()).toEqual([1, 2, 3, 4, 5]);
  });

  test('usage is the share of blocks with an owner', () => {
    expect(pool.usage).toBe(0);
    const [a] = allocate(4);
    pool.cache(a!, HASHES, 0, 0);
    expect(pool.usage).toBeCloseTo(0.8);
    pool.free(a!);
    expect(pool.usage).toBeCloseTo(0.6);
  });
});
