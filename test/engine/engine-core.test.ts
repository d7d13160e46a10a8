import { describe, expect, test } from 'bun:test';
import { request, settle, setUp } from './core-harness.ts';

describe('engine core', () => {
  for (const maxInFlight of [1, 2]) {
    test(`answers each client with its own requests' tokens (${maxInFlight} steps in flight)`, async () => {
      const { core, clients, executor, received, shutDown, close } = setUp(maxInFlight);
      clients[0]!.send({ type: 'add', request: request(1, 5, { maxTokens: 4 }) });
      clients[1]!.send({ type: 'add', request: request(1, 100, { maxTokens: 3 }) });
      // The loop stops only after what it has read before is done: shut down when both have ended.
      const finish = executor.execute.bind(executor);
      executor.execute = (scheduled) => {
        if (executor.steps.length === 10) shutDown();
        return finish(scheduled);
      };
      clients[0]!.send({ type: 'add', request: request(2, 3, { maxTokens: 20 }) });
      await core.run();
      await settle(() => received[1]!.some((output) => output.finishReason !== null));
      const tokens = (client: number, handle: number) =>
        received[client]!.filter((output) => output.handle === handle).flatMap((output) => output.newTokenIds);
      expect(tokens(0, 1)).toEqual([5, 6, 7, 8]);
      expect(tokens(1, 1)).toEqual([100, 101, 102]);
      expect(received[0]!.find((output) => output.handle === 1 && output.finishReason)!.finishReason).toBe('length');
      expect(executor.maxInFlight).toBe(maxInFlight);
      close();
    });
  }

  test('a step that waits for its logits is enqueued alone, after what came before is out', async () => {
    const { core, clients, executor, received, shutDown, close } = setUp(2);
    clients[0]!.send({ type: 'add', request: request(1, 5, { maxTokens: 9 }) });
    clients[0]!.send({ type: 'add', request: request(2, 7, { maxTokens: 4, logitsProcessors: ['any'] }) });
    const execute = executor.execute.bind(executor);
    const inFlightBefore: [boolean, number][] = [];
    executor.execute = (scheduled) => {
      if (executor.steps.length === 8) shutDown();
      inFlightBefore.push([scheduled.waitsForLogits, executor.inFlight]);
      return execute(scheduled);
    };
    core.run();
    await settle(() => received[0]!.filter((output) => output.finishReason !== null).length === 2);
    const tokens = (handle: number) =>
      received[0]!.filter((output) => output.handle === handle).flatMap((output) => output.newTokenIds);
    expect(tokens(1)).toEqual([5, 6, 7, 8, 9, 10, 11, 12, 13]);
    expect(tokens(2)).toEqual([7, 8, 9, 10]);
    const waiting = inFlightBefore.filter(([waits]) => waits);
    expect(waiting).toEqual(new Array(4).fill([true, 0]));
    expect(executor.maxInFlight).toBe(2);
    close();
  });

  test('an abort frees the request within a step and nothing more is sent for it', async () => {
    const { core, clients, executor, scheduler, received, shutDown, close } = setUp(2);
    clients[0]!.send({ type: 'add', request: request(7, 5, { maxTokens: 200 }) });
    const execute = executor.execute.bind(executor);
    executor.execute = (scheduled) => {
      if (executor.steps.length === 5) {
        clients[0]!.send({ type: 'abort', abort: { handles: [7, 12345] } });
        shutDown();
      }
      return execute(scheduled);
    };
    await core.run();
    expect(executor.steps.length).toBeLessThanOrEqual(7);
    expect(scheduler.hasRequests()).toBe(false);
    expect(scheduler.stats().kvCacheUsage).toBe(0);
    await settle(() => received[0]!.length > 0);
    expect(received[0]!.every((output) => output.finishReason === null)).toBe(true);
    close();
  });

  test('utility calls are answered; an unknown one gives an error', async () => {
    const { core, clients, messages, shutDown, close } = setUp(1);
    for (const [callId, method] of ['resetPrefixCache', 'stats', 'nonsense'].entries()) {
      clients[0]!.send({ type: 'utility', call: { callId, method, argsJson: '[]' } });
    }
    shutDown();
    await core.run();
    await settle(() => messages.length >= 4);
    const results = messages.flatMap((message) => (message.type === 'utility-result' ? [message.result] : []));
    expect(results[0]).toEqual({ callId: 0, error: null, resultJson: 'true' });
    expect(JSON.parse(results[1]!.resultJson)).toMatchObject({ numRunning: 0, numSteps: 0 });
    expect(results[2]!.error).toContain('nonsense');
    close();
  });

  test('unseeded requests get different seeds, seeded ones their own', async () => {
    const { core, clients, executor, shutDown, close } = setUp(1);
    clients[0]!.send({ type: 'add', request: request(1, 5, { maxTokens: 1 }) });
    clients[0]!.send({ type: 'add', request: request(2, 5, { maxTokens: 1 }) });
    clients[0]!.send({ type: 'add', request: request(3, 5, { maxTokens: 1, seed: 42 }) });
    // The copies of one request differ, however large its seed is.
    for (const sequenceIndex of [0, 1]) {
      const copy = { ...request(4 + sequenceIndex, 5, { maxTokens: 1, seed: 2 ** 62 }), sequenceIndex };
      clients[0]!.send({ type: 'add', request: copy });
    }
    const execute = executor.execute.bind(executor);
    executor.execute = (scheduled) => {
      shutDown();
      return execute(scheduled);
    };
    await core.run();
    const [first, second, third, ...copies] = executor.steps[0]!.newRequests;
    expect(first!.seed).not.toBe(second!.seed);
    expect(third!.seed).toBe(42n);
    expect(copies.map(({ seed }) => seed)).toEqual([2n ** 62n, 2n ** 62n + 1n]);
    close();
  });
});
