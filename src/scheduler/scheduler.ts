import { type AllocateOptions, KVCacheManager, type PrefixHit } from '../kv-cache/kv-cache-manager.ts';
import type { KvCacheConfig } from '../kv-cache/kv-cache-spec.ts';
import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import { isTokenwise } from '../pooling/pooling-params.ts';
import { checkStop, type Stop } from './check-stop.ts';
import { DraftCounter } from './draft-counter.ts';
import type { FinishReason } from './finish-reason.ts';
import type { Request } from './request.ts';
import { type RequestOrder, requestOrder } from './request-queue.ts';
import { RunningAdapters } from './running-adapters.ts';
import type { PauseState, RequestUpdate, SchedulerCounters, SchedulerInterface } from './scheduler-interface.ts';
import { checkEveryRequestFits, type SchedulerOptions } from './scheduler-options.ts';
import type {
  CachedRequestData,
  DraftTokens,
  ModelRunnerOutput,
  NewRequestData,
  SchedulerOutput,
} from './scheduler-output.ts';
import { sliceLogprobs, takePromptLogprobs } from './slice-logprobs.ts';
import { noteScheduled, numTokensToCompute } from './step-of-request.ts';
import { WaitingRequests } from './waiting-requests.ts';

const NO_TOKENS: number[] = [];
const NOBODY: ReadonlySet<number> = new Set();
const NOTHING_NEW = {
  newTokenIds: [],
  newLogprobs: null,
  newPromptLogprobs: null,
  poolerOutput: null,
  stopReason: null,
};

/**
 * Continuous batching as in vLLM v1. Every request has tokens (known, in flight, drafted) and a count of those computed; a step lets requests catch up,
 * running ones first, then waiting ones, within one token budget. Prefill, chunked prefill, decode, recompute after a preemption and verification
 * of drafts are all that one rule.
 *
 * A running request that finds no free block preempts the last in the policy's order, itself at worst. The first can take the blocks of all others and one
 * request of full length always fits, so the first always goes on and everyone finishes.
 *
 * Async scheduling. `numComputedTokens` moves when a step is scheduled, and a token that a step in flight will sample counts as a placeholder, so the
 * next step can be scheduled as if it were known. If its request then finishes, or is aborted, the later result is dropped; that step may still
 * write to the blocks given back, but in stream order before whoever gets them. If its request is preempted, the token in flight is kept when it arrives:
 * the request stays at the front of the queue until then, since its new start must know all its tokens.
 */
export class Scheduler implements SchedulerInterface {
  pauseState: PauseState = 'unpaused';
  private readonly kvCache: KVCacheManager;
  private readonly order: RequestOrder;
  private readonly waiting: WaitingRequests;
  /** In the policy's order, so the last one is the one to preempt, and it is never scheduled yet when another one needs its blocks. */
  private readonly running: Request[] = [];
  /** Unfinished requests. */
  private readonly requests = new Map<number, Request>();
  private readonly adapters: RunningAdapters;
  private readonly numWatermarkBlocks: number;
  private readonly runningAllocation: AllocateOptions;
  /** Requests that the worker holds and must forget. */
  private releasedKeys: number[] = [];
  private nextSequence = 0;
  private numPreemptions = 0;
  private readonly drafts = new DraftCounter();
  /** A request that found too few free blocks, and how many there were: not worth another look before there are more. */
  private blocked: { request: Request; numFreeBlocks: number } | null = null;

  /** Throws Error when the options could leave a request waiting forever. */
  constructor(
    private readonly options: SchedulerOptions,
    kvCacheConfig: KvCacheConfig,
  ) {
    const { numLookaheadTokens = 0 } = options;
    checkEveryRequestFits(options, numLookaheadTokens, kvCacheConfig);
    this.runningAllocation = { numLookaheadTokens };
    this.kvCache = new KVCacheManager(kvCacheConfig, options);
    this.order = requestOrder(options.policy);
    this.adapters = new RunningAdapters(options.maxLoras ?? Number.POSITIVE_INFINITY);
    this.waiting = new WaitingRequests(this.order, this.adapters, options.maxNumSeqs);
    this.numWatermarkBlocks = Math.floor(options.watermark * kvCacheConfig.numBlocks);
  }

  get numRunning(): number {
    return this.running.length;
  }

  get numWaiting(): number {
    return this.waiting.size;
  }

  get numStarted(): number {
    return this.running.length + this.waiting.numPreempted;
  }

  get kvCacheUsage(): number {
    return this.kvCache.usage;
  }

  hasRequests(): boolean {
    return this.requests.size > 0;
  }

  unfinishedRequests(): Request[] {
    return [...this.requests.values()];
  }

  canSchedule(): boolean {
    if (this.pauseState === 'paused-all') return false;
    return this.pauseState === 'paused-new' ? this.numStarted > 0 : this.requests.size > 0;
  }

  addRequest(request: Request): void {
    const { maxModelLen } = this.options;
    if (request.numPromptTokens < 1 || request.numPromptTokens > maxModelLen) {
      const found = `request ${request.requestId} has a prompt of ${request.numPromptTokens} tokens`;
      throw new RangeError(`${found}; it must have 1 to ${maxModelLen}`);
    }
    request.sequence = this.nextSequence++;
    this.requests.set(request.key, request);
    this.waiting.push(request);
  }

  finishRequests(keys: readonly number[], reason: FinishReason): void {
    let finished = false;
    for (const key of keys) {
      const request = this.requests.get(key);
      if (request === undefined) continue;
      this.finish(request, reason);
      finished = true;
    }
    if (finished) this.dropFinishedFromRunning();
  }

  schedule(held: ReadonlySet<number> = NOBODY): SchedulerOutput {
    const step: SchedulerOutput = {
      newRequests: [],
      cachedRequests: [],
      totalNumScheduledTokens: 0,
      releasedKeys: [],
      grammarBitmask: null,
      forcedTokens: [],
      waitsForLogits: false,
    };
    const numPreemptionsBefore = this.numPreemptions;
    if (this.pauseState !== 'paused-all') this.scheduleRunning(step, held);
    // Who joins now would only take the blocks that someone has just been preempted for.
    if (this.pauseState !== 'paused-all' && this.numPreemptions === numPreemptionsBefore)
      this.scheduleWaiting(step, held);
    step.releasedKeys = this.releasedKeys;
    this.releasedKeys = [];
    return step;
  }

  updateFromOutput(scheduled: SchedulerOutput, result: ModelRunnerOutput): RequestUpdate[] {
    const { cachedRequests, newRequests } = scheduled;
    const updates = this.failRequests(result.failures);
    let finished = updates.length > 0;
    for (let i = 0; i < result.keys.length; i++) {
      const entry = cachedRequests[i] ?? newRequests[i - cachedRequests.length];
      if (entry?.key !== result.keys[i])
        throw new Error(`result ${i} of a step is of request ${result.keys[i]}, not ${entry?.key}`);
      const request = this.requests.get(entry.key);
      if (request === undefined) continue;
      const update = this.updateRequest(request, entry, result, i);
      if (update === null) continue;
      updates.push(update);
      finished ||= update.finishReason !== null;
    }
    if (finished) this.dropFinishedFromRunning();
    return updates;
  }

  updateDraftTokens(drafts: readonly DraftTokens[]): void {
    for (const { key, tokenIds } of drafts) {
      const request = this.requests.get(key);
      // Behind a token in flight they would not continue the text that they were made for.
      if (request?.status === 'running' && request.numOutputPlaceholders === 0) request.specTokenIds = tokenIds;
    }
  }

  resetPrefixCache(resetRunningRequests = false): boolean {
    if (resetRunningRequests) for (let last = this.running.pop(); last; last = this.running.pop()) this.preempt(last);
    return this.kvCache.resetPrefixCache();
  }

  stats(): SchedulerCounters {
    const { queries, hits } = this.kvCache.prefixCacheStats;
    return {
      numRunning: this.running.length,
      numWaiting: this.waiting.size,
      kvCacheUsage: this.kvCacheUsage,
      prefixCacheQueries: queries,
      prefixCacheHits: hits,
      numPreemptions: this.numPreemptions,
      ...this.drafts.totals,
      runningLoraAdapters: uniqueSorted(this.adapters.names()),
      waitingLoraAdapters: uniqueSorted(this.waiting.loraNames()),
    };
  }

  private scheduleRunning(step: SchedulerOutput, held: ReadonlySet<number>): void {
    for (let i = 0; i < this.running.length; i++) {
      const budget = this.budgetLeft(step);
      if (budget === 0) break;
      const request = this.running[i]!;
      const numNewTokens = Math.min(
        numTokensToCompute(request, this.options.maxModelLen, held.has(request.key)),
        this.limitOfRequest(),
        budget,
      );
      if (numNewTokens === 0) continue;
      const newBlockIds = this.allocateOrPreempt(request, numNewTokens);
      if (newBlockIds === null) break;
      step.cachedRequests.push(this.scheduleCached(request, numNewTokens, newBlockIds));
      noteScheduled(step, request, numNewTokens);
    }
  }

  private scheduleWaiting(step: SchedulerOutput, held: ReadonlySet<number>): void {
    while (this.running.length < this.options.maxNumSeqs) {
      const budget = this.budgetLeft(step);
      const request = this.pauseState === 'paused-new' ? this.waiting.nextPreempted() : this.waiting.next();
      if (budget === 0 || request === null || request.numOutputPlaceholders > 0 || this.isBlocked(request)) break;
      // Only one that was preempted can be.
      if (held.has(request.key)) break;
      const hit = this.readsPrefixCache(request) ? this.kvCache.getComputedBlocks(request) : null;
      const numMissing = request.numTokens - (hit?.numTokens ?? 0);
      if (!this.options.enableChunkedPrefill && numMissing > budget) break;
      const numNewTokens = Math.min(numMissing, this.limitOfRequest(), budget);
      const blockIds = this.kvCache.allocateSlots(request, numNewTokens, {
        ...this.runningAllocation,
        hit,
        numReservedBlocks: this.running.length > 0 ? this.numWatermarkBlocks : 0,
      });
      if (blockIds === null) {
        this.blocked = { request, numFreeBlocks: this.kvCache.numFreeBlocks };
        break;
      }
      step.newRequests.push(this.admit(request, hit, numNewTokens, blockIds));
      noteScheduled(step, request, numNewTokens);
    }
  }

  private budgetLeft(step: SchedulerOutput): number {
    return this.options.maxNumBatchedTokens - step.totalNumScheduledTokens;
  }

  private limitOfRequest(): number {
    const { enableChunkedPrefill, longPrefillTokenThreshold } = this.options;
    return enableChunkedPrefill && longPrefillTokenThreshold > 0 ? longPrefillTokenThreshold : Number.POSITIVE_INFINITY;
  }

  private allocateOrPreempt(request: Request, numNewTokens: number): number[][] | null {
    for (;;) {
      const newBlockIds = this.kvCache.allocateSlots(request, numNewTokens, this.runningAllocation);
      if (newBlockIds !== null) return newBlockIds;
      const victim = this.running.pop()!;
      this.preempt(victim);
      if (victim === request) return null;
    }
  }

  /** Recompute later: the blocks go, the tokens stay. What is left of its blocks in the prefix cache then shortens the way. */
  private preempt(request: Request): void {
    this.kvCache.free(request);
    this.adapters.remove(request);
    request.status = 'preempted';
    request.numComputedTokens = 0;
    request.specTokenIds = NO_TOKENS;
    request.numPreemptions++;
    this.numPreemptions++;
    this.releasedKeys.push(request.key);
    this.waiting.push(request);
  }

  private scheduleCached(request: Request, numNewTokens: number, newBlockIds: number[][]): CachedRequestData {
    const { key, numComputedTokens, specTokenIds } = request;
    const numDrafts = Math.max(0, numComputedTokens + numNewTokens - request.numTokens - request.numOutputPlaceholders);
    request.specTokenIds = NO_TOKENS;
    request.numSpecTokensInFlight = numDrafts;
    this.advance(request, numNewTokens);
    return {
      key,
      newBlockIds,
      numComputedTokens,
      numScheduledTokens: numNewTokens,
      specTokenIds: numDrafts === 0 ? NO_TOKENS : specTokenIds.slice(0, numDrafts),
    };
  }

  private admit(request: Request, hit: PrefixHit | null, numNewTokens: number, blockIds: number[][]): NewRequestData {
    const numHitTokens = hit?.numTokens ?? 0;
    this.waiting.admit(request);
    if (request.numCachedTokens < 0) {
      request.numCachedTokens = numHitTokens;
      if (hit !== null) this.kvCache.recordPrefixCacheQuery(request.numTokens, numHitTokens);
    }
    request.status = 'running';
    request.numComputedTokens = numHitTokens;
    this.adapters.add(request);
    this.insertRunning(request);
    this.advance(request, numNewTokens);
    return {
      key: request.key,
      requestId: request.requestId,
      tokenIds: request.tokenIds.slice(),
      numPromptTokens: request.numPromptTokens,
      samplingParams: request.samplingParams,
      poolingParams: request.poolingParams,
      eosTokenIds: request.eosTokenIds,
      seed: request.seed,
      lora: request.lora,
      blockIds,
      numComputedTokens: numHitTokens,
      numScheduledTokens: numNewTokens,
    };
  }

  /** A step that catches up with all tokens samples one. */
  private advance(request: Request, numNewTokens: number): void {
    request.numComputedTokens += numNewTokens;
    if (request.numComputedTokens >= request.numTokens + request.numOutputPlaceholders) request.numOutputPlaceholders++;
  }

  private insertRunning(request: Request): void {
    let at = this.running.length;
    while (at > 0 && this.order(this.running[at - 1]!, request) > 0) at--;
    this.running.splice(at, 0, request);
  }

  private isBlocked(request: Request): boolean {
    return this.blocked?.request === request && this.kvCache.numFreeBlocks <= this.blocked.numFreeBlocks;
  }

  /** Log probabilities of prompt positions, and what is pooled of each token, come from computing them. */
  private readsPrefixCache(request: Request): boolean {
    if (request.poolingParams !== null && isTokenwise(request.poolingParams)) return false;
    return (
      request.samplingParams.promptLogprobs === null || request.numPromptLogprobsSent >= request.numPromptTokens - 1
    );
  }

  private failRequests(failures: ModelRunnerOutput['failures']): RequestUpdate[] {
    return failures.flatMap(({ key, message }) => {
      const request = this.requests.get(key);
      if (request === undefined) return [];
      this.finish(request, 'error');
      const failure = { fault: 'server' as const, message };
      return [{ ...NOTHING_NEW, request, finishReason: 'error' as const, failure, isFirst: !request.hasOutput }];
    });
  }

  private updateRequest(
    request: Request,
    { numComputedTokens: numComputedBefore }: CachedRequestData | NewRequestData,
    result: ModelRunnerOutput,
    i: number,
  ): RequestUpdate | null {
    const pooled = result.poolerOutputs?.[i] ?? null;
    if (pooled !== null) return this.finishPooled(request, pooled);
    const sampled = result.sampledTokenIds[i]!;
    if (sampled.length > 0) this.settleInFlight(request, sampled.length);
    const { newTokenIds, stop } = this.appendTokens(request, sampled);
    const newPromptLogprobs = takePromptLogprobs(request, numComputedBefore, result.promptLogprobs[i]!);
    if (newTokenIds.length === 0 && newPromptLogprobs === null) return null;

    // Tokens that were in flight when their slots were allocated can be hashed only now.
    if (request.status === 'running') this.kvCache.cacheBlocks(request, request.numComputedTokens);
    if (stop !== null) this.finish(request, stop.finishReason);
    const isFirst = !request.hasOutput;
    request.hasOutput = true;
    return {
      request,
      newTokenIds,
      newLogprobs: sliceLogprobs(result.logprobs[i]!, 0, newTokenIds.length),
      newPromptLogprobs,
      poolerOutput: null,
      finishReason: stop?.finishReason ?? null,
      stopReason: stop?.stopReason ?? null,
      failure: null,
      isFirst,
    };
  }

  /** The pooled output takes the place of the token that the step was to sample. */
  private finishPooled(request: Request, poolerOutput: PoolerOutput): RequestUpdate {
    this.settleInFlight(request, 1);
    if (request.status === 'running') this.kvCache.cacheBlocks(request, request.numComputedTokens);
    this.finish(request, 'stop');
    return { ...NOTHING_NEW, request, poolerOutput, finishReason: 'stop', failure: null, isFirst: true };
  }

  /** The step's placeholder becomes tokens. Rejected drafts were computed in vain: their slots will be written again. */
  private settleInFlight(request: Request, numSampled: number): void {
    const numRejected = request.numSpecTokensInFlight + 1 - numSampled;
    if (request.numOutputPlaceholders === 0 || numRejected < 0) {
      throw new Error(`request ${request.requestId} was given ${numSampled} tokens, more than it asked for`);
    }
    this.drafts.add(request.numSpecTokensInFlight, numSampled - 1);
    request.numOutputPlaceholders--;
    request.numSpecTokensInFlight = 0;
    if (request.status === 'running') request.numComputedTokens -= numRejected;
  }

  private appendTokens(request: Request, sampled: number[]): { newTokenIds: number[]; stop: Stop | null } {
    for (let i = 0; i < sampled.length; i++) {
      request.appendToken(sampled[i]!);
      const stop = checkStop(request, this.options.maxModelLen);
      if (stop !== null) return { newTokenIds: i + 1 < sampled.length ? sampled.slice(0, i + 1) : sampled, stop };
    }
    return { newTokenIds: sampled, stop: null };
  }

  /** Callers drop the request from `running` afterwards, for all that finish at once. */
  private finish(request: Request, reason: FinishReason): void {
    if (request.status === 'running') {
      this.kvCache.free(request);
      this.adapters.remove(request);
      this.releasedKeys.push(request.key);
    } else {
      this.waiting.remove(request);
    }
    request.status = `finished-${reason}`;
    this.requests.delete(request.key);
  }

  private dropFinishedFromRunning(): void {
    let kept = 0;
    for (const request of this.running) if (request.status === 'running') this.running[kept++] = request;
    this.running.length = kept;
  }
}

/** Two loadings of an adapter may have one name. */
function uniqueSorted(names: readonly string[]): string[] {
  return [...new Set(names)].sort();
}
