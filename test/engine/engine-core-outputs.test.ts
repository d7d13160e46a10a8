import { expect, test } from 'bun:test';
import type { SchedulerStats } from '../../src/engine/messages.ts';
import { StructuredOutputManager } from '../../src/structured-output/structured-output-manager.ts';
import { CountingBackend } from '../structured-output/counting-backend.ts';
import { request, settle, setUp } from './core-harness.ts';

type Core = ReturnType<typeof setUp>;

/** Runs the core, which is given a batch of client 0's requests whenever it has nothing to do, and stopped after the last one. */
async function runToEnd(core: Core, ...batches: ReturnType<typeof request>[][]): Promise<void> {
  const { clients, received, shutDown, close, status } = core;
  const numRequests = batches.flat().length;
  status.sleep = () => {
    const batch = batches.shift();
    if (batch === undefined) shutDown();
    for (const each of batch ?? []) clients[0]!.send({ type: 'add', request: each });
  };
  await core.core.run();
  await settle(() => received[0]!.filter(({ finishReason }) => finishReason !== null).length === numRequests);
  close();
}

const firstsOf = ({ received }: Core, handle: number) => received[0]!.filter((output) => output.handle === handle);

test('the first output of a request says what the prefix cache had of its prompt, later ones do not', async () => {
  const core = setUp(2);
  const again = { ...request(1, 40, { maxTokens: 3 }), handle: 2 };
  await runToEnd(core, [request(1, 40, { maxTokens: 3 })], [again]);
  expect(firstsOf(core, 1).map(({ numCachedTokens }) => numCachedTokens)).toEqual([0, 0, 0]);
  expect(firstsOf(core, 2).map(({ numCachedTokens }) => numCachedTokens)).toEqual([32, 0, 0]);
  expect(firstsOf(core, 2).map(({ firstScheduledMs }) => firstScheduledMs > 0)).toEqual([true, false, false]);
});

test('prompts whose positions are counted from elsewhere share no prefix', async () => {
  const core = setUp(2);
  core.executor.positionOffset = (numPromptTokens) => (numPromptTokens > 40 ? 7 : 0);
  const longer = { ...request(1, 50, { maxTokens: 1 }), handle: 2 };
  await runToEnd(core, [request(1, 40, { maxTokens: 1 })], [longer]);
  expect(firstsOf(core, 2).map(({ numCachedTokens }) => numCachedTokens)).toEqual([0]);
});

test('the last output says how often the request was preempted', async () => {
  const core = setUp(2, { numBlocks: 18 });
  await runToEnd(core, [request(1, 100, { maxTokens: 80 }), request(2, 100, { maxTokens: 80 })]);
  expect(core.scheduler.stats().numPreemptions).toBeGreaterThan(0);
  const preemptions = [1, 2].map((handle) => firstsOf(core, handle).at(-1)!.numPreemptions);
  expect(preemptions[0]! + preemptions[1]!).toBe(core.scheduler.stats().numPreemptions);
});

test('statistics come no later than the last of all answers', async () => {
  for (const maxInFlight of [1, 2]) {
    const core = setUp(maxInFlight);
    const again = { ...request(1, 40, { maxTokens: 3 }), handle: 2 };
    await runToEnd(core, [request(1, 40, { maxTokens: 3 })], [again], [request(3, 5, { maxTokens: 2 })]);
    let latest: SchedulerStats | null = null;
    const found: unknown[] = [];
    for (const message of core.messages) {
      if (message.type !== 'outputs') continue;
      latest = message.outputs.stats ?? latest;
      const { numRunning, kvCacheUsage, prefixCacheQueries, prefixCacheHits } = latest!;
      if (message.outputs.outputs.some(({ finishReason }) => finishReason !== null)) {
        found.push([numRunning, kvCacheUsage, prefixCacheQueries, prefixCacheHits]);
      }
    }
    expect(found).toEqual([
      [0, 0, 40, 0],
      [0, 0, 80, 32],
      [0, 0, 85, 32],
    ]);
  }
});

test('the last statistics have all of the last step, not the time of its device alone', async () => {
  const core = setUp(1);
  const execute = core.executor.execute.bind(core.executor);
  core.executor.execute = (scheduled) => {
    const pending = execute(scheduled);
    return {
      wait: () => {
        Bun.sleepSync(5);
        return pending.wait();
      },
    };
  };
  await runToEnd(core, [request(1, 20, { maxTokens: 1 })]);
  const last = core.messages.flatMap((message) => (message.type === 'outputs' ? [message.outputs.stats] : [])).at(-1)!;
  expect(last.numSteps).toBe(1);
  expect(last.hostMs).toBeGreaterThan(0);
  expect(last.stepMs).toBeGreaterThan(last.hostMs);
});

test('one client counts the tokens of a step, all of them', async () => {
  const core = setUp(2);
  core.clients[1]!.send({ type: 'add', request: request(9, 30, { maxTokens: 5 }) });
  await runToEnd(core, [request(1, 20, { maxTokens: 50 })]);
  await settle(() => core.received[1]!.some(({ finishReason }) => finishReason !== null));
  const counted = core.messages.flatMap((message) =>
    message.type === 'outputs' ? [message.outputs.numStepTokens] : [],
  );
  const scheduled = core.executor.steps.map(({ totalNumScheduledTokens }) => totalNumScheduledTokens);
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  expect(sum(counted)).toBe(sum(scheduled));
});

test('the worker hears of each request’s end once, also of one that ended while no step was due', async () => {
  const core = setUp(2);
  // The first one ends while the last token of the second is in flight: there is nothing to schedule then.
  const together = [request(1, 20, { maxTokens: 3 }), request(2, 20, { maxTokens: 4 })];
  await runToEnd(core, together, [request(3, 20, { maxTokens: 3 })], [request(4, 5)]);
  const keys = core.executor.steps.flatMap(({ newRequests }) => newRequests.map(({ key }) => key));
  expect(core.executor.steps.flatMap(({ releasedKeys }) => releasedKeys)).toEqual(keys.slice(0, -1));
});

test('an abort frees the grammar, whether it is compiled or not', async () => {
  for (const status of ['compiling', 'ready'] as const) {
    const backend = new CountingBackend();
    backend.status = status;
    const core = setUp(2, { structuredOutputs: new StructuredOutputManager(() => backend) });
    const structuredOutputs = { kind: 'regex' as const, text: '', startsAfter: [255] };
    core.clients[0]!.send({ type: 'add', request: request(1, 5, { maxTokens: 200, structuredOutputs }) });
    // Compiling, the core has nothing to do; else it is at its steps.
    const abort = () => {
      core.clients[0]!.send({ type: 'abort', abort: { handles: [1] } });
      core.shutDown();
    };
    core.status.sleep = abort;
    const execute = core.executor.execute.bind(core.executor);
    core.executor.execute = (scheduled) => {
      if (core.executor.steps.length === 3) abort();
      return execute(scheduled);
    };
    await core.core.run();
    expect(backend.live).toBe(0);
    core.close();
  }
});

/** A core whose grammars have the text 1, 2, 3, and whose masks are ready when they have been looked for so many times. */
function withMasks(looksUntilReady: number) {
  const backend = new CountingBackend();
  backend.status = 'ready';
  backend.looksUntilReady = looksUntilReady;
  const manager = new StructuredOutputManager(() => backend);
  return { backend, manager, core: setUp(2, { structuredOutputs: manager }) };
}

/** The executor's tokens are positions: behind a prompt of one token, 1, 2, 3 and on. */
const constrained = (handle: number, promptLength = 1) => ({
  ...request(handle, promptLength, {
    maxTokens: 50,
    structuredOutputs: { kind: 'regex', text: '', startsAfter: null },
  }),
  eosTokenIds: [0],
});

test('a mask that takes long holds its own request, and changes no output', async () => {
  const results = [0, 8].map((looks) => ({ looks, ...withMasks(looks) }));
  for (const { core } of results) await runToEnd(core, [constrained(1), request(2, 20, { maxTokens: 90 })]);
  const [quick, slow] = results.map(({ core }) =>
    [1, 2].map((handle) => firstsOf(core, handle).flatMap(({ newTokenIds }) => [...newTokenIds])),
  );
  expect(slow).toEqual(quick!);
  expect(quick![0]).toEqual([1, 2, 3, 0]);
  expect(quick![1]).toHaveLength(90);
  for (const { core, looks } of results) {
    // The request with the grammar is the first or the second to be admitted: the one with 20 tokens in its prompt is the other.
    const other = core.executor.steps.flatMap(({ newRequests }) =>
      newRequests.filter(({ tokenIds }) => tokenIds.length === 20),
    )[0]!.key;
    const steps = core.executor.steps.map((step) =>
      [...step.cachedRequests, ...step.newRequests].map(({ key }) => key),
    );
    const sampling = steps.flatMap((keys, step) => (keys.some((key) => key !== other) ? [step] : []));
    // All of the steps between are the other's.
    const between = sampling.slice(1).map((step, i) => step - sampling[i]!);
    expect(Math.min(...between)).toBeGreaterThanOrEqual(Math.max(1, looks));
    expect(steps.filter((keys) => keys.includes(other))).toHaveLength(90);
  }
});

test('where all wait for their masks the core sleeps a little, and goes on', async () => {
  const { core, manager } = withMasks(8);
  let numSleeps = 0;
  core.status.sleep = () => {
    numSleeps++;
    if (manager.numWaiting === 0 && !core.scheduler.hasRequests()) core.shutDown();
  };
  core.clients[0]!.send({ type: 'add', request: constrained(1) });
  await core.core.run();
  await settle(() => firstsOf(core, 1).some(({ finishReason }) => finishReason === 'stop'));
  expect(numSleeps).toBeGreaterThan(3 * 6);
  core.close();
});

test('a token that the grammar does not have is an error of the request, the others go on', async () => {
  const { core, backend } = withMasks(2);
  await runToEnd(core, [constrained(1, 5), request(2, 20, { maxTokens: 30 })]);
  expect(firstsOf(core, 1).at(-1)).toMatchObject({ finishReason: 'error', failure: { fault: 'client' } });
  expect(firstsOf(core, 2).at(-1)!.finishReason).toBe('length');
  expect(backend.live).toBe(0);
});
