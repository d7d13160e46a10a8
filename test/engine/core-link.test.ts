import { describe, expect, test } from 'bun:test';
import { ClientConnection, CoreConnection, createCoreLink } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import type { ClientMessage, CoreMessage } from '../../src/engine/messages.ts';

function connect(onMessage: (message: CoreMessage) => void) {
  const status = CoreStatus.create(2);
  const { client, core } = createCoreLink(3, 1, status);
  return { status, client: new CoreConnection(client, onMessage), core: new ClientConnection(core, status) };
}

const utility = (callId: number, argsJson = ''): ClientMessage => ({
  type: 'utility',
  call: { callId, method: 'm', argsJson },
});
const result = (callId: number, resultJson = 'null'): CoreMessage => ({
  type: 'utility-result',
  result: { callId, error: null, resultJson },
});

describe('core link', () => {
  test('client messages reach the core in order', () => {
    const { client, core } = connect(() => {});
    expect(core.hasInput).toBe(false);
    client.send(utility(1));
    client.send(utility(2));
    expect(core.hasInput).toBe(true);
    expect(core.receive()).toEqual(utility(1));
    expect(core.receive()).toEqual(utility(2));
    expect(core.receive()).toBeNull();
    client.close();
    core.close();
  });

  test('core messages wake the client, also again and again', async () => {
    const received: number[] = [];
    const all = Promise.withResolvers<void>();
    const { client, core } = connect((message) => {
      if (message.type !== 'utility-result') return;
      received.push(message.result.callId);
      if (received.length < 50) core.send(result(received.length));
      else all.resolve();
    });
    core.send(result(0));
    await all.promise;
    expect(received).toEqual(Array.from({ length: 50 }, (_, i) => i));
    client.close();
    core.close();
  });

  test('more than the ring holds waits at the sender and goes out later, both ways', async () => {
    const big = 'x'.repeat(700_000);
    let count = 0;
    const all = Promise.withResolvers<void>();
    const { client, core } = connect(() => {
      if (++count === 8) all.resolve();
    });
    for (let i = 0; i < 8; i++) core.send(result(i, big));
    expect(core.hasPendingOutput).toBe(true);
    const flushing = setInterval(() => core.flush(), 1);
    await all.promise;
    clearInterval(flushing);
    expect(core.hasPendingOutput).toBe(false);

    for (let i = 0; i < 8; i++) client.send(utility(i, big));
    for (let next = 0; next < 8; ) {
      const message = core.receive();
      if (message === null) await new Promise<void>((resolve) => setImmediate(resolve));
      else expect(message).toEqual(utility(next++, big));
    }
    client.close();
    core.close();
  });

  test('a client that does not read gets no new work until it has read', () => {
    const { client, core } = connect(() => {});
    client.send(utility(1));
    const big = 'x'.repeat(1 << 20);
    for (let i = 0; i < 20; i++) core.send(result(i, big));
    expect(core.isChoked).toBe(true);
    expect(core.hasInput).toBe(false);
    expect(core.receive()).toBeNull();
    client.close();
    core.close();
  });
});

describe('core status', () => {
  test('heartbeat, load and received counts are read through another view of the same words', () => {
    const status = CoreStatus.create(2);
    const seen = new CoreStatus(status.buffer);
    expect(seen.state).toBe('starting');
    status.state = 'busy';
    status.countLoopTurn();
    status.addProgress(7);
    status.setLoad(3, 4, 0.25);
    status.countReceived(1);
    expect(seen.state).toBe('busy');
    expect(seen.loopTurns).toBe(1);
    expect(seen.progress).toBe(7);
    expect([seen.numRunning, seen.numWaiting, seen.kvCacheUsage]).toEqual([3, 4, 0.25]);
    expect([seen.received(0), seen.received(1)]).toEqual([0, 1]);
  });

  test('a core does not fall asleep on work that came in the meantime', () => {
    const status = CoreStatus.create(1);
    status.sleep(1e9, () => {
      status.ringDoorbell();
      return false;
    });
    status.sleep(1e9, () => true);
  });
});
