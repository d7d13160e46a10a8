import { HASH_WORDS } from './block-hashes.ts';

/** Block 0 holds nothing: it stands in block tables where a block is not needed (any more). */
export const NULL_BLOCK = 0;

const NOT_CACHED = -1;

/**
 * All KV blocks of a core: who is free, who is shared, and which block holds which hashed content. Arrays indexed by block id, no objects.
 *
 * A free block is in one of three places: never used yet (above `nextFresh`), free without content worth keeping (a stack), or free but still
 * cached (a list in order of release, through which a prefix hit can take it back). They are given out in the order stack, never used, least
 * recently released: reuse touches no new memory, and content is only evicted when nothing else is left. All operations are O(1).
 */
export class BlockPool {
  private readonly refCounts: Int32Array;
  /** LRU list of free cached blocks, closed over the null block: next[0] is the oldest, previous[0] the newest. */
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private numFreeCached = 0;
  private readonly stack: Int32Array;
  private stackLength = 0;
  private nextFresh = 1;

  /**
   * Hash table from (hash, group) to blocks: `buckets` has the first block of a chain, `chain` the next one, 0 ends it. Two requests that compute
   * the same tokens at the same time leave duplicates, which simply share a chain.
   */
  private readonly buckets: Int32Array;
  private readonly chain: Int32Array;
  private readonly hashes: Int32Array;
  private readonly groups: Int32Array;

  /** numBlocks counts the null block. */
  constructor(readonly numBlocks: number) {
    this.refCounts = new Int32Array(numBlocks);
    this.next = new Int32Array(numBlocks);
    this.previous = new Int32Array(numBlocks);
    this.stack = new Int32Array(numBlocks);
    this.buckets = new Int32Array(2 ** Math.ceil(Math.log2(2 * numBlocks)));
    this.chain = new Int32Array(numBlocks);
    this.hashes = new Int32Array(numBlocks * HASH_WORDS);
    this.groups = new Int32Array(numBlocks).fill(NOT_CACHED);
  }

  get numFreeBlocks(): number {
    return this.stackLength + (this.numBlocks - this.nextFresh) + this.numFreeCached;
  }

  /** Share of the blocks that requests hold, 0..1. */
  get usage(): number {
    return this.numBlocks > 1 ? 1 - this.numFreeBlocks / (this.numBlocks - 1) : 0;
  }

  refCount(block: number): number {
    return this.refCounts[block]!;
  }

  isCached(block: number): boolean {
    return this.groups[block] !== NOT_CACHED;
  }

  /** A block of one's own. Throws when none is free: callers count first. */
  allocate(): number {
    const block = this.takeFree();
    this.refCounts[block] = 1;
    return block;
  }

  /** One more owner of a cached block, which leaves the free list if it was there. */
  touch(block: number): void {
    if (this.refCounts[block] === 0) this.unlinkFree(block);
    this.refCounts[block]!++;
  }

  /**
   * One owner less. Content stays findable until the block is given out again, so of one request free the last block first: the longer a prefix,
   * the fewer requests it serves.
   */
  free(block: number): void {
    const owners = this.refCounts[block]! - 1;
    if (owners < 0 || block === NULL_BLOCK) throw new Error(`KV block ${block} was freed without an owner`);
    this.refCounts[block] = owners;
    if (owners > 0) return;
    if (this.isCached(block)) this.linkNewest(block);
    else this.stack[this.stackLength++] = block;
  }

  /** A block of `group` with the hash at `hashes[index * HASH_WORDS]`, or NULL_BLOCK. */
  lookup(hashes: Int32Array, index: number, group: number): number {
    const at = index * HASH_WORDS;
    let block = this.buckets[this.bucketOf(hashes[at]!, group)]!;
    while (block !== NULL_BLOCK && !this.holds(block, hashes, at, group)) block = this.chain[block]!;
    return block;
  }

  /** Makes a full block in use findable. Its content must be in place before anything scheduled later on the stream reads it. */
  cache(block: number, hashes: Int32Array, index: number, group: number): void {
    if (this.isCached(block)) throw new Error(`KV block ${block} is cached already`);
    const at = index * HASH_WORDS;
    for (let i = 0; i < HASH_WORDS; i++) this.hashes[block * HASH_WORDS + i] = hashes[at + i]!;
    this.groups[block] = group;
    const bucket = this.bucketOf(hashes[at]!, group);
    this.chain[block] = this.buckets[bucket]!;
    this.buckets[bucket] = block;
  }

  /** Forgets all cached content; false, and nothing done, while a block is in use. */
  reset(): boolean {
    if (this.numFreeBlocks !== this.numBlocks - 1) return false;
    this.buckets.fill(NULL_BLOCK);
    this.groups.fill(NOT_CACHED);
    for (let block = this.next[NULL_BLOCK]!; block !== NULL_BLOCK; block = this.next[block]!) {
      this.stack[this.stackLength++] = block;
    }
    this.next[NULL_BLOCK] = NULL_BLOCK;
    this.previous[NULL_BLOCK] = NULL_BLOCK;
    this.numFreeCached = 0;
    return true;
  }

  private takeFree(): number {
    if (this.stackLength > 0) return this.stack[--this.stackLength]!;
    if (this.nextFresh < this.numBlocks) return this.nextFresh++;
    const oldest = this.next[NULL_BLOCK]!;
    if (oldest === NULL_BLOCK) throw new Error('no KV block is free');
    this.unlinkFree(oldest);
    this.evict(oldest);
    return oldest;
  }

  private evict(block: number): void {
    const bucket = this.bucketOf(this.hashes[block * HASH_WORDS]!, this.groups[block]!);
    this.groups[block] = NOT_CACHED;
    let at = this.buckets[bucket]!;
    if (at === block) {
      this.buckets[bucket] = this.chain[block]!;
      return;
    }
    while (this.chain[at] !== block) at = this.chain[at]!;
    this.chain[at] = this.chain[block]!;
  }

  private holds(block: number, hashes: Int32Array, at: number, group: number): boolean {
    if (this.groups[block] !== group) return false;
    const own = block * HASH_WORDS;
    for (let i = 0; i < HASH_WORDS; i++) if (this.hashes[own + i] !== hashes[at + i]) return false;
    return true;
  }

  /** The hash is uniform already; groups only need to differ. */
  private bucketOf(firstWord: number, group: number): number {
    return (firstWord + Math.imul(group, 0x9e3779b1)) & (this.buckets.length - 1);
  }

  private linkNewest(block: number): void {
    const newest = this.previous[NULL_BLOCK]!;
    this.next[newest] = block;
    this.previous[block] = newest;
    this.next[block] = NULL_BLOCK;
    this.previous[NULL_BLOCK] = block;
    this.numFreeCached++;
  }

  private unlinkFree(block: number): void {
    const next = this.next[block]!;
    const previous = this.previous[block]!;
    this.next[previous] = next;
    this.previous[next] = previous;
    this.numFreeCached--;
  }
}
