import type { BlockPool } from './block-pool.ts';
import type { KvCacheSpec } from './kv-cache-spec.ts';

/** What differs between kinds of attention: which blocks of a sequence are still read, and so which prefix of it can be taken from the cache. */
export interface GroupManager {
  /** Index of the group. */
  readonly group: number;
  /** Leading blocks that no query at position `numComputedTokens` or later reads. */
  numSkippedBlocks(numComputedTokens: number): number;
  /**
   * The longest prefix, in blocks and at most `maxBlocks`, of which every block that is still read behind it is in the pool.
   * `hashes` holds those of at least `maxBlocks` blocks.
   */
  longestCachedPrefix(hashes: Int32Array, maxBlocks: number): number;
}

export function createGroupManager(spec: KvCacheSpec, group: number, pool: BlockPool): GroupManager {
  return spec.kind === 'full' ? new FullAttentionManager(group, pool) : new SlidingWindowManager(spec, group, pool);
}

/** Every block is read for as long as the sequence lives. */
class FullAttentionManager implements GroupManager {
  constructor(
    readonly group: number,
    private readonly pool: BlockPool,
  ) {}

  numSkippedBlocks(): number {
    return 0;
  }

  longestCachedPrefix(hashes: Int32Array, maxBlocks: number): number {
    let length = 0;
    while (length < maxBlocks && this.pool.lookup(hashes, length, this.group) !== 0) length++;
    return length;
  }
}

/** A query at p reads keys in (p - window, p]: blocks wholly before that are dead. */
class SlidingWindowManager implements GroupManager {
  private readonly blockSize: number;
  /** Tokens that a query reads besides its own. */
  private readonly reach: number;

  constructor(
    spec: KvCacheSpec,
    readonly group: number,
    private readonly pool: BlockPool,
  ) {
    this.blockSize = spec.blockSize;
    this.reach = spec.slidingWindow - 1;
  }

  numSkippedBlocks(numComputedTokens: number): number {
    return Math.floor(Math.max(0, numComputedTokens - this.reach) / this.blockSize);
  }

  /** From the right: the first run of blocks that covers the window, or reaches the start. */
  longestCachedPrefix(hashes: Int32Array, maxBlocks: number): number {
    const needed = Math.ceil(this.reach / this.blockSize);
    if (needed === 0) return maxBlocks;
    let run = 0;
    for (let block = maxBlocks - 1; block >= 0; block--) {
      run = this.pool.lookup(hashes, block, this.group) === 0 ? 0 : run + 1;
      if (run === needed) return block + needed;
    }
    return run;
  }
}
