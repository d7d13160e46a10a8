import type { KvCacheConfig } from '../../src/kv-cache/kv-cache-spec.ts';
import type { LogprobsTensors } from '../../src/sampling/logprobs-tensors.ts';
import type {
  CachedRequestData,
  ModelRunnerOutput,
  NewRequestData,
  SchedulerOutput,
} from '../../src/scheduler/scheduler-output.ts';

/** Token ids of the fake model are 0..FAKE_VOCAB_SIZE-1. */
export const FAKE_VOCAB_SIZE = 12;

/** Hash of a history: of the tokens before, and the one that follows. */
export function extendHistory(history: number, tokenId: number): number {
  let h = Math.imul(history ^ (tokenId + 0x7f4a7c15), 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

/** Where a history begins: adapters compute different keys and values. */
export function emptyHistory(loraId: number | null): number {
  return loraId === null ? 1 : extendHistory(2, loraId);
}

/** The fake model's greedy token after a history. */
export function nextToken(history: number): number {
  return (extendHistory(history, 0x5bd1e995) >>> 0) % FAKE_VOCAB_SIZE;
}

interface HeldRequest {
  data: NewRequestData;
  /** Known tokens and those sampled by steps in flight. */
  tokens: number[];
  blockTables: number[][];
}

interface Row {
  held: HeldRequest;
  entry: NewRequestData | CachedRequestData;
  drafts: number[];
  /** History hash up to and including each position from 0 to the end of the step. */
  histories: number[];
}

/**
 * A worker whose KV cache holds, in each slot, a hash of the token's whole history, and whose attention checks that it reads what it should. Steps run at once, in
 * the order of their enqueueing, as on one stream.
 */
export class FakeWorker {
  private readonly held = new Map<number, HeldRequest>();
  private readonly cache: Int32Array;
  private readonly blockSize: number;
  numSteps = 0;

  constructor(
    private readonly config: KvCacheConfig,
    private readonly maxNumSeqs: number,
  ) {
    this.blockSize = config.groups[0]!.spec.blockSize;
    this.cache = new Int32Array(config.numBlocks * this.blockSize);
  }

  get heldKeys(): number[] {
    return [...this.held.keys()];
  }

  /** As if its memory had been freed and allocated anew. */
  clearCache(): void {
    this.cache.fill(0);
  }

  execute(scheduled: SchedulerOutput): ModelRunnerOutput {
    this.numSteps++;
    const rows = this.updateStates(scheduled);
    // One layer: the whole batch writes before any row reads.
    for (const row of rows) this.writeCache(row);
    for (const row of rows) this.checkAttention(row);
    const forced = new Map(scheduled.forcedTokens.map(({ key, tokenId }) => [key, tokenId]));
    const sampledTokenIds = rows.map((row) => this.sample(row, forced.get(row.entry.key)));
    return {
      keys: rows.map((row) => row.entry.key),
      sampledTokenIds,
      logprobs: sampledTokenIds.map((ids) => (ids.length === 0 ? null : logprobsOf(ids))),
      promptLogprobs: rows.map(promptLogprobsOf),
      failures: [],
    };
  }

  private updateStates(scheduled: SchedulerOutput): Row[] {
    for (const key of scheduled.releasedKeys) {
      if (!this.held.delete(key)) throw new Error(`released ${key}, which the worker does not hold`);
    }
    const rows: Row[] = [];
    for (const entry of scheduled.cachedRequests) {
      const held = this.held.get(entry.key);
      if (held === undefined) throw new Error(`${entry.key} is scheduled as cached, but the worker does not hold it`);
      for (const [g, ids] of entry.newBlockIds.entries()) held.blockTables[g]!.push(...ids);
      rows.push(this.toRow(held, entry, entry.specTokenIds));
    }
    for (const entry of scheduled.newRequests) {
      if (this.held.has(entry.key)) throw new Error(`${entry.key} is scheduled as new, but the worker holds it`);
      const held = { data: entry, tokens: [...entry.tokenIds], blockTables: entry.blockIds.map((ids) => [...ids]) };
      this.held.set(entry.key, held);
      rows.push(this.toRow(held, entry, []));
    }
    if (this.held.size > this.maxNumSeqs) throw new Error(`the worker holds ${this.held.size} requests`);
    return rows;
  }

  private toRow(held: HeldRequest, entry: NewRequestData | CachedRequestData, drafts: number[]): Row {
    const end = entry.numComputedTokens + entry.numScheduledTokens;
    if (entry.numScheduledTokens < 1) throw new Error(`${entry.key} is scheduled with nothing to do`);
    if (end > held.tokens.length + drafts.length) throw new Error(`${entry.key} is scheduled beyond its tokens`);
    const histories: number[] = [];
    let history = emptyHistory(held.data.lora?.id ?? null);
    for (let p = 0; p < end; p++) {
      history = extendHistory(history, held.tokens[p] ?? drafts[p - held.tokens.length]!);
      histories.push(history);
    }
    return { held, entry, drafts, histories };
  }

  private slot(held: HeldRequest, group: number, position: number): number {
    const block = held.blockTables[group]![Math.floor(position / this.blockSize)];
    if (block === undefined || block < 1 || block >= this.config.numBlocks) {
      throw new Error(`position ${position} of ${held.data.key} is in block ${block} of group ${group}`);
    }
    return block * this.blockSize + (position % this.blockSize);
  }

  private writeCache({ held, entry, histories }: Row): void {
    for (let g = 0; g < this.config.groups.length; g++) {
      for (let p = entry.numComputedTokens; p < histories.length; p++) {
        this.cache[this.slot(held, g, p)] = histories[p]! ^ g;
      }
    }
  }

  private checkAttention({ held, entry, histories }: Row): void {
    this.config.groups.forEach(({ spec }, g) => {
      const first = spec.kind === 'full' ? 0 : Math.max(0, entry.numComputedTokens - spec.slidingWindow + 1);
      for (let p = first; p < histories.length; p++) {
        if (this.cache[this.slot(held, g, p)] !== (histories[p]! ^ g)) {
          throw new Error(`request ${entry.key} reads foreign keys at position ${p}, group ${g}`);
        }
      }
    });
  }

  /** Verifies the drafts: the model's own token at each place, up to and including the first that differs from the draft. */
  private sample({ held, drafts, histories }: Row, forced: number | undefined): number[] {
    if (histories.length < held.tokens.length) return [];
    if (forced !== undefined && drafts.length > 0) throw new Error('a forced token follows a draft');
    const sampled: number[] = [];
    for (let p = held.tokens.length - 1; p < histories.length; p++) {
      const token = forced ?? nextToken(histories[p]!);
      const draft = drafts[sampled.length];
      sampled.push(token);
      if (token !== draft) break;
    }
    held.tokens.push(...sampled);
    return sampled;
  }
}

function logprobsOf(tokenIds: readonly number[]): LogprobsTensors {
  return {
    numPositions: tokenIds.length,
    width: 1,
    tokenIds: Int32Array.from(tokenIds),
    logprobs: Float32Array.from(tokenIds, (id) => -id),
    ranks: Int32Array.from(tokenIds, (id) => id + 1),
  };
}

function promptLogprobsOf({ held, entry }: Row): LogprobsTensors | null {
  const { numPromptTokens, tokenIds, samplingParams } = held.data;
  if (samplingParams.promptLogprobs === null) return null;
  const first = entry.numComputedTokens + 1;
  const targets = tokenIds.subarray(first, Math.min(numPromptTokens, first + entry.numScheduledTokens));
  return targets.length === 0 ? null : logprobsOf([...targets]);
}
