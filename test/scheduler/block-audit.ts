// biome-ignore-all lint/complexity/useLiteralKeys: private fields are reached by name, which only brackets may
import type { BlockPool } from '../../src/kv-cache/block-pool.ts';
import type { Scheduler } from '../../src/scheduler/scheduler.ts';

/** Looks into the scheduler's KV cache: every block is owned exactly as often as it stands in block tables, and all others are free exactly once. */
export function auditBlocks(scheduler: Scheduler): void {
  const kvCache = scheduler['kvCache'];
  const pool = kvCache['pool'];
  const owners = new Int32Array(pool.numBlocks);
  for (const tables of kvCache['tables'].values()) {
    for (const { ids, length } of tables) for (let i = 0; i < length; i++) owners[ids[i]!]!++;
  }
  const numFree = freeBlocks(pool);
  let numUsed = 0;
  for (let block = 1; block < pool.numBlocks; block++) {
    if (pool.refCount(block) !== owners[block]) {
      throw new Error(`block ${block} counts ${pool.refCount(block)} owners and has ${owners[block]}`);
    }
    if (owners[block]! > 0) {
      numUsed++;
      if (numFree.has(block)) throw new Error(`block ${block} is free and in use`);
    } else if (!numFree.has(block)) {
      throw new Error(`block ${block} has leaked`);
    }
  }
  if (pool.refCount(0) !== 0) throw new Error('the null block is owned');
  if (pool.numFreeBlocks !== pool.numBlocks - 1 - numUsed) throw new Error('the count of free blocks is wrong');
}

function freeBlocks(pool: BlockPool): Set<number> {
  const free = new Set<number>();
  const add = (block: number) => {
    if (free.has(block) || block === 0) throw new Error(`block ${block} is free twice`);
    free.add(block);
  };
  for (let block = pool['nextFresh']; block < pool.numBlocks; block++) add(block);
  for (let i = 0; i < pool['stackLength']; i++) add(pool['stack'][i]!);
  for (let block = pool['next'][0]!; block !== 0; block = pool['next'][block]!) {
    if (!pool.isCached(block)) throw new Error(`block ${block} is in the LRU list, but not cached`);
    add(block);
  }
  return free;
}
