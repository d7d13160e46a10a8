import { expect, test } from 'bun:test';
import { StepWork } from '../../src/engine/core/step-work.ts';
import type { SchedulerStats } from '../../src/engine/messages.ts';
import { ModelWork } from '../../src/layers/model-work.ts';
import { request, settle, setUp } from './core-harness.ts';

/** Of one product of 10 and one of 100 weights, the second for logits; queries of 2 elements see a window of 20 tokens. */
function model(): ModelWork {
  const work = new ModelWork(1);
  work.addLinear({ inFeatures: 5, outFeatures: 2, bytes: 10 });
  work.addLogits({ inFeatures: 10, outFeatures: 10, bytes: 100 });
  work.addAttention({ numHeads: 1, numKvHeads: 1, headDim: 2, window: 20, cacheElementBytes: 1 });
  return work;
}

/** Statistics of a core that has answered a request for 3 tokens to a prompt of 16. */
async function statsOf(stepWork: StepWork | null): Promise<SchedulerStats> {
  const { core, clients, executor, messages, received, shutDown, close } = setUp(1, { stepWork });
  clients[0]!.send({ type: 'add', request: request(1, 16, { maxTokens: 3 }) });
  const execute = executor.execute.bind(executor);
  executor.execute = (scheduled) => {
    if (executor.steps.length === 2) shutDown();
    return execute(scheduled);
  };
  await core.run();
  await settle(() => received[0]!.some(({ finishReason }) => finishReason !== null));
  close();
  return messages.flatMap((message) => (message.type === 'outputs' ? (message.outputs.stats ?? []) : [])).at(-1)!;
}

test('the work of a prompt and of the tokens behind it adds up', async () => {
  const stats = await statsOf(new StepWork(model()));
  const [numSteps, numTokens, contexts] = [3, 16 + 2, 16 + 17 + 18];
  expect(stats.estimatedFlops).toBe(numTokens * 20 + numSteps * 200 + 8 * (16 * 16 + 17 + 18));
  expect(stats.estimatedReadBytes).toBe(numSteps * 110 + numTokens * (5 + 2) + numSteps * 10 + 4 * contexts);
  expect(stats.estimatedWriteBytes).toBe(numTokens * (2 + 4) + numSteps * 4 * 10);
});

test('nothing is estimated unless it is asked for', async () => {
  const { estimatedFlops, estimatedReadBytes, estimatedWriteBytes, numSteps } = await statsOf(null);
  expect(numSteps).toBe(3);
  expect([estimatedFlops, estimatedReadBytes, estimatedWriteBytes]).toEqual([0, 0, 0]);
});

test('drafts have logits, each chunk of a prompt has one row of them', () => {
  const work = new ModelWork(1);
  work.addLogits({ inFeatures: 1, outFeatures: 1, bytes: 0 });
  const stepWork = new StepWork(work);
  const base = { newBlockIds: [], key: 1, numComputedTokens: 0 };
  stepWork.add({
    newRequests: [],
    cachedRequests: [
      { ...base, numScheduledTokens: 4, specTokenIds: [1, 2, 3] },
      { ...base, numScheduledTokens: 50, specTokenIds: [] },
    ],
    totalNumScheduledTokens: 54,
    releasedKeys: [],
    grammarBitmask: null,
    forcedTokens: [],
    waitsForLogits: false,
  });
  expect(stepWork.totals.flops).toBe(2 * (4 + 1));
});
