import { blocksPerRequest } from '../kv-cache/kv-cache-config.ts';
import type { KvCacheConfig } from '../kv-cache/kv-cache-spec.ts';
import type { SchedulingPolicy } from './request-queue.ts';

export interface SchedulerOptions {
  /** Most requests in a step. */
  maxNumSeqs: number;
  /** Token budget of a step: prompts, generation and drafts together. */
  maxNumBatchedTokens: number;
  /** Most tokens of a request, prompt and output. */
  maxModelLen: number;
  /** False: a prompt that does not fit into what is left of the budget waits for a later step. */
  enableChunkedPrefill: boolean;
  /** Most tokens of one request in a step, with chunked prefill; 0: only the budget counts. */
  longPrefillTokenThreshold: number;
  policy: SchedulingPolicy;
  /** Share of the KV blocks, 0..1, left free when a waiting request joins running ones. */
  watermark: number;
  enablePrefixCaching: boolean;
  /** Slots behind a request's tokens for the keys that a drafter writes. Default 0. */
  numLookaheadTokens?: number;
  /** Most different adapters of running requests. Default: any number. */
  maxLoras?: number;
}

/** Throws Error when the options could leave a request waiting forever. */
export function checkEveryRequestFits(
  options: SchedulerOptions,
  numLookaheadTokens: number,
  config: KvCacheConfig,
): void {
  const { maxModelLen, maxNumBatchedTokens, enableChunkedPrefill } = options;
  if (!enableChunkedPrefill && maxNumBatchedTokens < maxModelLen) {
    const found = `max_num_batched_tokens ${maxNumBatchedTokens} is less than max_model_len ${maxModelLen}`;
    throw new Error(`${found}: without chunked prefill a longer prompt could never be scheduled`);
  }
  const needed = blocksPerRequest(config.groups, {
    maxModelLen,
    maxNumBatchedTokens: maxNumBatchedTokens + numLookaheadTokens,
  });
  if (config.numBlocks <= needed) {
    const found = `${config.numBlocks} KV blocks are too few`;
    throw new Error(`${found}: one request of max_model_len ${maxModelLen} takes ${needed}, and one stays empty`);
  }
}
