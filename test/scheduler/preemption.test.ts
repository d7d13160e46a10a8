import { describe, expect, test } from 'bun:test';
import { generateAlone, makeRequest, range } from './fixtures.ts';
import { add, amounts, machine, output, step } from './machine.ts';

describe('preemption', () => {
  test('fcfs: the last to come gives up its blocks, comes back first and answers the same', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 20 }), makeRequest(range(28, 100), { maxTokens: 20 })];
    const c = makeRequest([1], { maxTokens: 1 });
    add(m.scheduler, a!, b!);
    step(m);
    expect(m.scheduler.numRunning).toBe(2);
    add(m.scheduler, c);
    while (b!.numPreemptions === 0) step(m);
    expect(b!.status).toBe('preempted');
    const numKnown = b!.numTokens;
    let back = step(m).scheduled.newRequests;
    while (back.length === 0) back = step(m).scheduled.newRequests;
    expect(back[0]!.key).toBe(b!.key);
    expect(back[0]!.tokenIds).toHaveLength(numKnown);
    while (m.scheduler.hasRequests()) step(m);
    for (const request of [a!, b!, c]) expect(output(request)).toEqual(generateAlone(request, 64).output);
    expect(m.scheduler.stats().numPreemptions).toBe(a!.numPreemptions + b!.numPreemptions + c.numPreemptions);
  });

  test('priority: the least urgent gives up its blocks, though it came first', () => {
    const m = machine({ policy: 'priority' }, 18);
    const slow = makeRequest(range(28), { maxTokens: 20 }, { priority: 5 });
    const urgent = makeRequest(range(36, 100), { maxTokens: 20 }, { priority: -5 });
    add(m.scheduler, slow);
    step(m);
    add(m.scheduler, urgent);
    while (m.scheduler.hasRequests()) step(m);
    expect([slow.numPreemptions > 0, urgent.numPreemptions]).toEqual([true, 0]);
    expect(output(slow)).toEqual(generateAlone(slow, 64).output);
  });

  test('what is left of its blocks in the prefix cache is not computed again, nor counted as a hit', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 4 }), makeRequest(range(27, 100), { maxTokens: 20 })];
    add(m.scheduler, a!, b!);
    let scheduled = step(m).scheduled;
    while (b!.numPreemptions === 0) scheduled = step(m).scheduled;
    while (!scheduled.newRequests.some(({ key }) => key === b!.key)) scheduled = step(m).scheduled;
    expect(scheduled.newRequests[0]!.numComputedTokens).toBeGreaterThan(0);
    expect(b!.numCachedTokens).toBe(0);
    expect(m.scheduler.stats()).toMatchObject({ prefixCacheQueries: 63, prefixCacheHits: 0 });
  });

  test('the watermark keeps blocks free for running requests, but not from the only one', () => {
    const m = machine({ watermark: 0.5 }, 20);
    const [a, b] = [makeRequest(range(60)), makeRequest(range(4, 100))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled).map(([key]) => key)).toEqual([a!.key]);
    m.scheduler.finishRequests([a!.key], 'abort');
    expect(amounts(step(m).scheduled).map(([key]) => key)).toEqual([b!.key]);
  });
});

describe('pausing', () => {
  test('paused-new lets the running ones go on and nobody join; paused-all stops them too', () => {
    const m = machine({ maxNumBatchedTokens: 10 });
    const [a, b] = [makeRequest(range(4)), makeRequest(range(4, 20))];
    add(m.scheduler, a!);
    step(m);
    m.scheduler.pauseState = 'paused-new';
    add(m.scheduler, b!);
    expect(m.scheduler.canSchedule()).toBe(true);
    expect(amounts(step(m).scheduled)).toEqual([[a!.key, 1]]);
    m.scheduler.pauseState = 'paused-all';
    expect(m.scheduler.canSchedule()).toBe(false);
    expect(m.scheduler.schedule().totalNumScheduledTokens).toBe(0);
    m.scheduler.pauseState = 'unpaused';
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 4],
    ]);
  });

  test('paused-new has nothing to schedule once the running ones have ended', () => {
    const m = machine();
    const a = makeRequest(range(4));
    m.scheduler.pauseState = 'paused-new';
    add(m.scheduler, a);
    expect([m.scheduler.canSchedule(), m.scheduler.hasRequests()]).toEqual([false, true]);
    expect(m.scheduler.unfinishedRequests()).toEqual([a]);
  });
});

test('a reset of the prefix cache may preempt what runs; its output is the same', () => {
  const m = machine({ enablePrefixCaching: true });
  const request = makeRequest(range(12), { maxTokens: 8 });
  add(m.scheduler, request);
  step(m);
  step(m);
  expect(m.scheduler.resetPrefixCache()).toBe(false);
  expect(m.scheduler.resetPrefixCache(true)).toBe(true);
  expect(m.scheduler.stats()).toMatchObject({ numRunning: 0, numWaiting: 1, kvCacheUsage: 0, numPreemptions: 1 });
  // All of it is computed anew: nothing was left in the cache.
  expect(amounts(step(m).scheduled)).toEqual([[request.key, 14]]);
  while (m.scheduler.hasRequests()) step(m);
  expect(output(request)).toEqual(generateAlone(request, 64).output);
});
