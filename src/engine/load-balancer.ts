import type { CoreStatus } from './core-status.ts';

/** What the balancer knows of a core. */
export interface CoreLoad {
  readonly status: Pick<CoreStatus, 'numRunning' | 'numWaiting' | 'kvCacheUsage'>;
  /** Requests on their way to the core. */
  readonly numUnreceived: number;
}

/** Prefixes are remembered at multiples of this many tokens. */
const CHUNK_TOKENS = 64;
const MAX_REMEMBERED_CHUNKS = 1 << 16;
/** A waiting request weighs as much as this many running ones (vLLM's weight). */
const WAITING_WEIGHT = 4;
/** A core with the prompt's prefix is taken while its load is at most this much above the least loaded one's. */
const AFFINITY_SLACK = 8;

/**
 * Chooses an engine core for each request: the one that computed the longest part of the prompt before, if it isn't much busier than the others,
 * else the least loaded by queue, running requests and KV cache use.
 */
export class LoadBalancer {
  /** Hash of a prompt's first k chunks → core, least recently used first. */
  private readonly coreOfPrefix = new Map<bigint, number>();
  private next = 0;

  constructor(private readonly cores: readonly CoreLoad[]) {}

  /** @param loraId of the request's adapter: the same tokens under another one are another prefix */
  choose(promptTokenIds: Int32Array, loraId: number | null = null): number {
    if (this.cores.length === 1) return 0;
    const loads = this.cores.map(loadOf);
    const least = this.leastLoaded(loads);
    const prefixes = prefixHashes(promptTokenIds, loraId);
    const known = this.coreOfLongest(prefixes);
    const chosen = known !== null && loads[known]! <= loads[least]! + AFFINITY_SLACK ? known : least;
    this.remember(prefixes, chosen);
    return chosen;
  }

  /** Ties go round. */
  private leastLoaded(loads: readonly number[]): number {
    const start = this.next++ % loads.length;
    let least = start;
    for (let i = 1; i < loads.length; i++) {
      const core = (start + i) % loads.length;
      if (loads[core]! < loads[least]!) least = core;
    }
    return least;
  }

  private coreOfLongest(prefixes: readonly bigint[]): number | null {
    for (let i = prefixes.length - 1; i >= 0; i--) {
      const core = this.coreOfPrefix.get(prefixes[i]!);
      if (core !== undefined) return core;
    }
    return null;
  }

  private remember(prefixes: readonly bigint[], core: number): void {
    for (const hash of prefixes) {
      this.coreOfPrefix.delete(hash);
      this.coreOfPrefix.set(hash, core);
    }
    for (const oldest of this.coreOfPrefix.keys()) {
      if (this.coreOfPrefix.size <= MAX_REMEMBERED_CHUNKS) break;
      this.coreOfPrefix.delete(oldest);
    }
  }
}

function loadOf({ status, numUnreceived }: CoreLoad): number {
  const { numRunning, numWaiting, kvCacheUsage } = status;
  return (numWaiting + numUnreceived) * WAITING_WEIGHT + numRunning + kvCacheUsage;
}

/** Hashes of the first 1, 2, … whole chunks. Only for placement: a collision costs a cache hit, nothing else. */
function prefixHashes(ids: Int32Array, loraId: number | null): bigint[] {
  const hashes: bigint[] = [];
  let hash = BigInt(loraId ?? 0);
  for (let end = CHUNK_TOKENS; end <= ids.length; end += CHUNK_TOKENS) {
    hash = Bun.hash.wyhash(ids.subarray(end - CHUNK_TOKENS, end), hash);
    hashes.push(hash);
  }
  return hashes;
}
