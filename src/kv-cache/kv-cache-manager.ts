import type { BlockHashes } from './block-hashes.ts';
import { BlockPool, NULL_BLOCK } from './block-pool.ts';
import { createGroupManager, type GroupManager } from './group-manager.ts';
import type { KvCacheConfig } from './kv-cache-spec.ts';

/** What the manager needs to know of a request. */
export interface CachedRequest {
  /** Never used again. */
  readonly key: number;
  /** Known tokens, prompt and output. */
  readonly numTokens: number;
  readonly tokenIds: Int32Array;
  /** Tokens whose keys and values are in the cache, or will be once the steps in flight are done. */
  readonly numComputedTokens: number;
  readonly blockHashes: BlockHashes;
}

export interface KVCacheManagerOptions {
  enablePrefixCaching: boolean;
  /** No request has more tokens. */
  maxModelLen: number;
}

/** A prompt's prefix in the cache. Valid until the next call of the manager. */
export interface PrefixHit {
  numTokens: number;
  /** By group, then by block of the prefix; NULL_BLOCK where a window does not reach. Only the first `numTokens / blockSize` count. */
  blockIds: Int32Array[];
}

export interface AllocateOptions {
  /** Of a request that holds nothing yet. */
  hit?: PrefixHit | null;
  /** Slots behind the new tokens, for the keys that a drafter writes. */
  numLookaheadTokens?: number;
  /** Blocks that must stay free. */
  numReservedBlocks?: number;
}

/** Blocks of one request in one group. */
interface BlockTable {
  ids: Int32Array;
  length: number;
  /** Leading blocks that fell out of the window: NULL_BLOCK. */
  numSkipped: number;
  /** Leading blocks that are in the prefix cache, or will never be. */
  numCached: number;
}

/**
 * Gives requests their KV blocks: which block of a sequence is which block of the pool, in every KV cache group.
 *
 * All decisions are made when a step is scheduled and hold for the device in stream order, so a block may be promised before it is written
 * and given away before it is last read:
 * - A full block is findable from the step on that computes it. Later steps run later; within that step each layer writes the keys and values
 *   of the whole flat batch (reshape_and_cache) before any row's attention reads them, so rows of the same step may share it too. That is how the
 *   copies of an n > 1 request, admitted together, compute their prompt once.
 * - A freed block may be overwritten by the next step scheduled. Steps in flight that still read or write it, for its old owner, are enqueued before.
 */
export class KVCacheManager {
  readonly blockSize: number;
  private readonly pool: BlockPool;
  private readonly groups: GroupManager[];
  private readonly tables = new Map<number, BlockTable[]>();
  /** What most calls of allocateSlots add. Shared, never written. */
  private readonly nothingNew: number[][];
  private readonly hitBuffers: Int32Array[];
  private queriedTokens = 0;
  private hitTokens = 0;

  constructor(
    config: KvCacheConfig,
    private readonly options: KVCacheManagerOptions,
  ) {
    this.blockSize = config.groups[0]?.spec.blockSize ?? options.maxModelLen;
    this.pool = new BlockPool(config.numBlocks);
    this.groups = config.groups.map(({ spec }, group) => createGroupManager(spec, group, this.pool));
    this.nothingNew = config.groups.map(() => []);
    const maxHitBlocks = options.enablePrefixCaching ? Math.floor(options.maxModelLen / this.blockSize) : 0;
    this.hitBuffers = config.groups.map(() => new Int32Array(maxHitBlocks));
  }

  get numFreeBlocks(): number {
    return this.pool.numFreeBlocks;
  }

  /** Share of the blocks that requests hold, 0..1. */
  get usage(): number {
    return this.pool.usage;
  }

  /** Prompt tokens looked for in the prefix cache and found there, since start. */
  get prefixCacheStats(): { queries: number; hits: number } {
    return { queries: this.queriedTokens, hits: this.hitTokens };
  }

  /** The longest cached prefix, valid for all groups, of a request that holds nothing. At least its last token is left to compute. */
  getComputedBlocks(request: CachedRequest): PrefixHit | null {
    if (!this.options.enablePrefixCaching) return null;
    const hashes = request.blockHashes.upTo(request.tokenIds, this.blockSize);
    let numBlocks = Math.floor((request.numTokens - 1) / this.blockSize);
    // A shorter prefix may lack a window's blocks that a longer one does not need, so shorten until all groups agree.
    let agreed = 0;
    for (let g = 0; agreed < this.groups.length && numBlocks > 0; g = (g + 1) % this.groups.length) {
      const length = this.groups[g]!.longestCachedPrefix(hashes, numBlocks);
      agreed = length === numBlocks ? agreed + 1 : 1;
      numBlocks = length;
    }
    for (const manager of this.groups) this.fillHit(manager, hashes, numBlocks);
    return { numTokens: numBlocks * this.blockSize, blockIds: this.hitBuffers };
  }

  /** Counts an admitted request's lookup. */
  recordPrefixCacheQuery(numTokens: number, numHitTokens: number): void {
    this.queriedTokens += numTokens;
    this.hitTokens += numHitTokens;
  }

  /**
   * Makes room for the request's next `numNewTokens` and gives the block ids that its tables grew by, by group (all of them for a request that held
   * nothing), or null, and nothing changed for it, if too few are free. The array is not the caller's to write.
   */
  allocateSlots(request: CachedRequest, numNewTokens: number, options: AllocateOptions = {}): number[][] | null {
    const { hit = null, numLookaheadTokens = 0, numReservedBlocks = 0 } = options;
    const tables = this.tables.get(request.key);
    const numComputed = request.numComputedTokens + (hit?.numTokens ?? 0);
    const numComputedAfter = numComputed + numNewTokens;
    const numSlots = Math.min(numComputedAfter + numLookaheadTokens, this.options.maxModelLen);
    const length = Math.ceil(numSlots / this.blockSize);
    if (tables !== undefined) this.freeSkippedBlocks(tables, numComputed);

    const needed = tables === undefined ? this.countForNew(length, hit) : countForGrowth(tables, length);
    if (needed > 0 && needed + numReservedBlocks > this.numFreeBlocks) return null;
    const grown = tables === undefined ? this.create(request.key, length, hit) : this.grow(tables, length, needed);
    this.cacheBlocks(request, numComputedAfter);
    return grown;
  }

  /**
   * Puts the request's full blocks among its first `numTokens` into the prefix cache. Tokens not known yet (in flight, drafts) are left out: call
   * again when they are.
   */
  cacheBlocks(request: CachedRequest, numTokens: number): void {
    if (!this.options.enablePrefixCaching) return;
    const numFull = Math.floor(Math.min(numTokens, request.numTokens) / this.blockSize);
    const tables = this.tables.get(request.key)!;
    for (let g = 0; g < tables.length; g++) {
      const table = tables[g]!;
      if (table.numCached >= numFull) continue;
      const hashes = request.blockHashes.upTo(request.tokenIds, this.blockSize);
      for (let i = table.numCached; i < numFull; i++) {
        const block = table.ids[i]!;
        if (block !== NULL_BLOCK) this.pool.cache(block, hashes, i, g);
      }
      table.numCached = numFull;
    }
  }

  /** Gives all blocks of a request back, the last one of the sequence first. */
  free(request: CachedRequest): void {
    const tables = this.tables.get(request.key);
    if (tables === undefined) return;
    this.tables.delete(request.key);
    // Groups in turn, since a prefix that one of them has lost is lost.
    const longest = tables.reduce((length, table) => Math.max(length, table.length), 0);
    for (let i = longest - 1; i >= 0; i--) {
      for (const table of tables) {
        if (i < table.length && table.ids[i] !== NULL_BLOCK) this.pool.free(table.ids[i]!);
      }
    }
  }

  /** Forgets all cached prefixes; false, and nothing done, while a block is in use. */
  resetPrefixCache(): boolean {
    return this.pool.reset();
  }

  private fillHit(manager: GroupManager, hashes: Int32Array, numBlocks: number): void {
    const ids = this.hitBuffers[manager.group]!;
    const numSkipped = manager.numSkippedBlocks(numBlocks * this.blockSize);
    ids.fill(NULL_BLOCK, 0, numSkipped);
    for (let i = numSkipped; i < numBlocks; i++) ids[i] = this.pool.lookup(hashes, i, manager.group);
  }

  /** Free blocks that a new request takes: new ones, and cached ones that nobody else holds. */
  private countForNew(length: number, hit: PrefixHit | null): number {
    const numHit = (hit?.numTokens ?? 0) / this.blockSize;
    let needed = (length - numHit) * this.groups.length;
    for (const ids of hit?.blockIds ?? []) {
      for (let i = 0; i < numHit; i++) {
        if (ids[i] !== NULL_BLOCK && this.pool.refCount(ids[i]!) === 0) needed++;
      }
    }
    return needed;
  }

  private create(key: number, length: number, hit: PrefixHit | null): number[][] {
    const numHit = (hit?.numTokens ?? 0) / this.blockSize;
    const tables: BlockTable[] = this.groups.map((manager) => ({
      ids: new Int32Array(length + 1),
      length: numHit,
      numSkipped: manager.numSkippedBlocks(numHit * this.blockSize),
      numCached: numHit,
    }));
    // All hits are taken before the first allocation, which might evict one.
    tables.forEach((table, g) => {
      for (let i = 0; i < numHit; i++) {
        const block = hit!.blockIds[g]![i]!;
        table.ids[i] = block;
        if (block !== NULL_BLOCK) this.pool.touch(block);
      }
    });
    this.tables.set(key, tables);
    for (const table of tables) this.append(table, length);
    return tables.map((table) => Array.from(table.ids.subarray(0, table.length)));
  }

  private grow(tables: BlockTable[], length: number, needed: number): number[][] {
    if (needed === 0) return this.nothingNew;
    return tables.map((table) => {
      const start = table.length;
      this.append(table, length);
      return Array.from(table.ids.subarray(start, table.length));
    });
  }

  private append(table: BlockTable, length: number): void {
    if (length > table.ids.length) {
      const grown = new Int32Array(Math.max(length, table.ids.length * 2));
      grown.set(table.ids.subarray(0, table.length));
      table.ids = grown;
    }
    while (table.length < length) table.ids[table.length++] = this.pool.allocate();
  }

  /** Blocks out of the window are free from here on, whether or not the request then gets what it asks for. */
  private freeSkippedBlocks(tables: BlockTable[], numComputedTokens: number): void {
    for (let g = 0; g < tables.length; g++) {
      const table = tables[g]!;
      const numSkipped = Math.min(this.groups[g]!.numSkippedBlocks(numComputedTokens), table.length);
      for (; table.numSkipped < numSkipped; table.numSkipped++) {
        this.pool.free(table.ids[table.numSkipped]!);
        table.ids[table.numSkipped] = NULL_BLOCK;
      }
    }
  }
}

function countForGrowth(tables: readonly BlockTable[], length: number): number {
  let needed = 0;
  for (const table of tables) needed += Math.max(0, length - table.length);
  return needed;
}
