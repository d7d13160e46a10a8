import { expect, test } from 'bun:test';
import type { KvCacheConfig } from '../../src/kv-cache/kv-cache-spec.ts';
import type { PoolerOutput } from '../../src/pooling/finish-pooling.ts';
import { POOLING_SAMPLING_PARAMS, type PoolingTask } from '../../src/pooling/pooling-params.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { SchedulerOptions } from '../../src/scheduler/scheduler-options.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { DEFAULT_OPTIONS, kvConfig, makeRequest, range } from './fixtures.ts';

const OUTPUT: PoolerOutput = { isTokenwise: false, numRows: 1, width: 1, values: Float32Array.of(1) };

function poolingRequest(length: number, task: PoolingTask = 'embed', start = 0) {
  const poolingParams = { task, dimensions: null, useActivation: true, firstTypeOne: null };
  return makeRequest(range(length, start), POOLING_SAMPLING_PARAMS, { poolingParams });
}

function scheduler(options: Partial<SchedulerOptions> = {}, config: KvCacheConfig = kvConfig(100, 4)): Scheduler {
  return new Scheduler({ ...DEFAULT_OPTIONS, ...options }, config);
}

/** What a worker gives that has computed the step: an output for each request whose prompt is complete. */
function run(scheduled: SchedulerOutput, lengths: ReadonlyMap<number, number>): ModelRunnerOutput {
  const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
  const nothing = entries.map(() => null);
  return {
    keys: entries.map(({ key }) => key),
    sampledTokenIds: entries.map(() => []),
    logprobs: nothing,
    promptLogprobs: nothing,
    poolerOutputs: entries.map(({ key, numComputedTokens, numScheduledTokens }) =>
      numComputedTokens + numScheduledTokens === lengths.get(key) ? OUTPUT : null,
    ),
    failures: [],
  };
}

test('a request ends with its prompt, however many steps that takes, and frees its blocks', () => {
  const s = scheduler({ maxNumBatchedTokens: 10 });
  const request = poolingRequest(25);
  s.addRequest(request);
  const amounts: number[] = [];
  for (let i = 0; i < 3; i++) {
    const step = s.schedule();
    amounts.push(step.totalNumScheduledTokens);
    const updates = s.updateFromOutput(step, run(step, new Map([[request.key, 25]])));
    expect(updates.map(({ finishReason, poolerOutput }) => [finishReason, poolerOutput])).toEqual(
      i < 2 ? [] : [['stop', OUTPUT]],
    );
  }
  expect(amounts).toEqual([10, 10, 5]);
  expect(s.hasRequests()).toBe(false);
  expect(s.stats().kvCacheUsage).toBe(0);
  expect(s.schedule().releasedKeys).toEqual([request.key]);
});

test('it is not scheduled again while its last step is in flight, and one that is dropped then gives nothing', () => {
  const s = scheduler();
  const [kept, dropped] = [poolingRequest(8), poolingRequest(8, 'embed', 50)];
  s.addRequest(kept);
  s.addRequest(dropped);
  const step = s.schedule();
  expect(s.schedule().totalNumScheduledTokens).toBe(0);
  s.finishRequests([dropped.key], 'abort');
  const lengths = new Map([kept, dropped].map(({ key }) => [key, 8]));
  expect(s.updateFromOutput(step, run(step, lengths)).map(({ request }) => request.key)).toEqual([kept.key]);
  expect(s.hasRequests()).toBe(false);
});

test('a prefix from the cache serves a sequence, but not its tokens one by one', () => {
  const s = scheduler();
  const computed = (task: PoolingTask) => {
    const request = poolingRequest(16, task);
    s.addRequest(request);
    const step = s.schedule();
    s.updateFromOutput(step, run(step, new Map([[request.key, 16]])));
    return step.totalNumScheduledTokens;
  };
  expect(computed('embed')).toBe(16);
  expect(computed('embed')).toBe(4);
  expect(computed('token_embed')).toBe(16);
});

test('a model without a KV cache schedules whole prompts within the budget', () => {
  const nothing = { numBlocks: 1, groups: [], tensors: [] };
  const s = scheduler({ enableChunkedPrefill: false, enablePrefixCaching: false }, nothing);
  const requests = [40, 20, 30].map((length) => poolingRequest(length));
  for (const request of requests) s.addRequest(request);
  const lengths = new Map(requests.map(({ key, numPromptTokens }) => [key, numPromptTokens]));
  const first = s.schedule();
  expect(first.newRequests.map(({ numScheduledTokens, blockIds }) => [numScheduledTokens, blockIds])).toEqual([
    [40, []],
    [20, []],
  ]);
  expect(s.updateFromOutput(first, run(first, lengths))).toHaveLength(2);
  const second = s.schedule();
  expect(second.totalNumScheduledTokens).toBe(30);
  s.updateFromOutput(second, run(second, lengths));
  expect(s.hasRequests()).toBe(false);
});
