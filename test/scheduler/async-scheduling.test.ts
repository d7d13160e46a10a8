import { describe, expect, test } from 'bun:test';
import { generateAlone, makeRequest, range } from './fixtures.ts';
import { add, allSampled, amounts, machine } from './machine.ts';

describe('async scheduling', () => {
  test('the next step is scheduled on tokens in flight, and not beyond max_tokens', () => {
    const { scheduler } = machine();
    const request = makeRequest(range(6), { maxTokens: 2 });
    add(scheduler, request);
    expect(amounts(scheduler.schedule())).toEqual([[request.key, 6]]);
    const second = scheduler.schedule();
    expect(second.cachedRequests[0]).toMatchObject({ numComputedTokens: 6, numScheduledTokens: 1 });
    expect(scheduler.schedule().totalNumScheduledTokens).toBe(0);
  });

  test('nor beyond the model length', () => {
    const { scheduler } = machine();
    add(scheduler, makeRequest(range(62), { maxTokens: 50 }));
    const totals = range(4).map(() => scheduler.schedule().totalNumScheduledTokens);
    expect(totals).toEqual([62, 1, 0, 0]);
  });

  test('a result behind the end is dropped', () => {
    const { scheduler, worker } = machine();
    const request = makeRequest(range(6), { maxTokens: 10 });
    request.samplingParams.stopTokenIds = generateAlone(request, 64).output.slice(0, 1);
    add(scheduler, request);
    const steps = range(2).map(() => {
      const scheduled = scheduler.schedule();
      return { scheduled, result: worker.execute(scheduled) };
    });
    const updates = steps.map(({ scheduled, result }) => scheduler.updateFromOutput(scheduled, result));
    expect(updates[0]).toMatchObject([{ finishReason: 'stop', stopReason: request.samplingParams.stopTokenIds[0] }]);
    expect(updates[1]).toEqual([]);
    expect(scheduler.schedule().releasedKeys).toEqual([request.key]);
  });

  test('a preempted request keeps the token in flight and waits for it', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 20 }), makeRequest(range(28, 100), { maxTokens: 20 })];
    add(m.scheduler, a!, b!);
    let previous = m.scheduler.schedule();
    let next = m.scheduler.schedule();
    while (b!.numPreemptions === 0) {
      m.scheduler.updateFromOutput(previous, allSampled(previous));
      previous = next;
      next = m.scheduler.schedule();
    }
    // `previous`, in which it still ran, is in flight; `next` preempted it.
    const numKnown = b!.numTokens;
    expect(b!.numOutputPlaceholders).toBe(1);
    m.scheduler.finishRequests([a!.key], 'abort');
    expect(m.scheduler.schedule().newRequests).toEqual([]);
    const updates = m.scheduler.updateFromOutput(previous, allSampled(previous));
    expect(updates).toMatchObject([{ request: b!, newTokenIds: [3] }]);
    expect(m.scheduler.schedule().newRequests[0]!.tokenIds).toHaveLength(numKnown + 1);
  });
});

describe('logits processors', () => {
  test('a request that has some waits for its token in flight; its steps are marked', () => {
    const { scheduler, worker } = machine({ maxNumBatchedTokens: 20 });
    const [plain, processed] = [makeRequest(range(4)), makeRequest(range(30, 30), { logitsProcessors: ['any'] })];
    add(scheduler, plain!, processed!);
    const steps = [scheduler.schedule()];
    const results = steps.map((scheduled) => worker.execute(scheduled));
    const next = () => {
      const scheduled = scheduler.schedule();
      steps.push(scheduled);
      results.push(worker.execute(scheduled));
      scheduler.updateFromOutput(steps.shift()!, results.shift()!);
      return [amounts(scheduled), scheduled.waitsForLogits];
    };
    // The first two steps compute its prompt: only the second samples.
    expect(steps[0]!.waitsForLogits).toBe(false);
    expect(next()).toEqual([
      [
        [plain!.key, 1],
        [processed!.key, 14],
      ],
      true,
    ]);
    expect(next()).toEqual([[[plain!.key, 1]], false]);
    expect(next()).toEqual([
      [
        [plain!.key, 1],
        [processed!.key, 1],
      ],
      true,
    ]);
    expect(next()).toEqual([[[plain!.key, 1]], false]);
  });

  test('a failure ends its request at once, whatever it sampled, and no other', () => {
    const { scheduler, worker } = machine();
    const [good, bad] = [makeRequest(range(4)), makeRequest(range(4, 10))];
    add(scheduler, good!, bad!);
    const scheduled = scheduler.schedule();
    const result = worker.execute(scheduled);
    const failures = [
      { key: bad!.key, message: 'It failed.' },
      { key: 123456, message: 'Nobody.' },
    ];
    const updates = scheduler.updateFromOutput(scheduled, { ...result, failures });
    expect(updates).toMatchObject([
      { request: bad, newTokenIds: [], finishReason: 'error', failure: { fault: 'server', message: 'It failed.' } },
      { request: good, finishReason: null, failure: null },
    ]);
    expect(bad!.finishReason).toBe('error');
    expect(scheduler.numRunning).toBe(1);
    expect(scheduler.schedule().releasedKeys).toEqual([bad!.key]);
  });
});
