import { describe, expect, test } from 'bun:test';
import { generateAlone, makeRequest, range } from './fixtures.ts';
import { add, amounts, machine, output, step } from './machine.ts';

describe('budget', () => {
  test('running requests come first, prompts share what is left, in chunks', () => {
    const m = machine({ maxNumBatchedTokens: 10 });
    const [a, b] = [makeRequest(range(4)), makeRequest(range(20, 30))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 4],
      [b!.key, 6],
    ]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 9],
    ]);
    expect(output(b!)).toEqual([]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 5],
    ]);
    expect(output(b!)).toEqual(generateAlone(b!, 64).output.slice(0, 1));
  });

  test('a long prompt takes no more than the threshold', () => {
    const m = machine({ maxNumBatchedTokens: 20, longPrefillTokenThreshold: 8 });
    const [a, b] = [makeRequest(range(30)), makeRequest(range(10, 40))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled).map(([, n]) => n)).toEqual([8, 8]);
    expect(amounts(step(m).scheduled).map(([, n]) => n)).toEqual([8, 2]);
  });

  test('without chunked prefill a prompt waits until it fits whole, and nobody overtakes it', () => {
    const m = machine({ maxNumBatchedTokens: 64, enableChunkedPrefill: false, longPrefillTokenThreshold: 4 });
    const [a, b, c] = [makeRequest(range(50)), makeRequest(range(15, 100)), makeRequest(range(2, 200))];
    add(m.scheduler, a!, b!, c!);
    expect(amounts(step(m).scheduled)).toEqual([[a!.key, 50]]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 15],
      [c!.key, 2],
    ]);
  });

  test('no more than maxNumSeqs run', () => {
    const m = machine({ maxNumSeqs: 2 });
    const requests = range(3).map((i) => makeRequest([i], { maxTokens: 2 }));
    add(m.scheduler, ...requests);
    step(m);
    expect([m.scheduler.numRunning, m.scheduler.numWaiting]).toEqual([2, 1]);
    step(m);
    const { scheduled } = step(m);
    expect(scheduled.releasedKeys).toEqual([requests[0]!.key, requests[1]!.key]);
    expect(scheduled.newRequests.map(({ key }) => key)).toEqual([requests[2]!.key]);
  });

  test('options that could leave a request waiting forever are refused', () => {
    expect(() => machine({ enableChunkedPrefill: false, maxNumBatchedTokens: 63 })).toThrow(
      'max_num_batched_tokens 63',
    );
    expect(() => machine({}, 16)).toThrow('16 KV blocks are too few');
    expect(() => machine({}, 17)).not.toThrow();
  });

  test('a prompt that can never run is refused', () => {
    const { scheduler } = machine();
    expect(() => scheduler.addRequest(makeRequest([]))).toThrow('prompt of 0 tokens');
    expect(() => scheduler.addRequest(makeRequest(range(65)))).toThrow('must have 1 to 64');
    expect(scheduler.hasRequests()).toBe(false);
  });
});

describe('aborts', () => {
  test('free everything at once, wherever the request is', () => {
    const m = machine({ maxNumSeqs: 1 });
    const [running, waiting] = [makeRequest(range(9)), makeRequest(range(9, 50))];
    add(m.scheduler, running!, waiting!);
    step(m);
    m.scheduler.finishRequests([running!.key, waiting!.key, running!.key, 123456789], 'abort');
    expect(m.scheduler.stats()).toMatchObject({ numRunning: 0, numWaiting: 0, kvCacheUsage: 0 });
    expect([running!.finishReason, waiting!.finishReason]).toEqual(['abort', 'abort']);
    expect(m.scheduler.hasRequests()).toBe(false);
    expect(m.scheduler.schedule()).toMatchObject({ totalNumScheduledTokens: 0, releasedKeys: [running!.key] });
  });
});

test('a result that does not belong to its step is an error', () => {
  const { scheduler, worker } = machine();
  add(scheduler, makeRequest(range(3)), makeRequest(range(4)));
  const scheduled = scheduler.schedule();
  const result = worker.execute(scheduled);
  expect(() => scheduler.updateFromOutput(scheduled, { ...result, keys: result.keys.toReversed() })).toThrow(
    'result 0',
  );
  result.sampledTokenIds[0] = [1, 2];
  expect(() => scheduler.updateFromOutput(scheduled, result)).toThrow('given 2 tokens');
});
