import { afterAll, expect, test } from 'bun:test';
import { Worker } from 'node:worker_threads';
import { Mailbox } from '../../src/structured-output/xgrammar/mailbox.ts';

const DEADLINE_MS = 10_000;

const mailbox = new Mailbox();
const worker = new Worker(new URL('../fixtures/counting-mailbox-worker.ts', import.meta.url), {
  workerData: mailbox.memory,
});
afterAll(() => worker.terminate());

test('a request is handled once, however late its notice comes', async () => {
  const words = new Int32Array(mailbox.memory);
  for (let count = 1; count <= 20; count++) {
    mailbox.post(count);
    expect(mailbox.wait(DEADLINE_MS)).toBe(true);
    expect(mailbox.result).toBe(count);
    // Who asks may be held between its request and the notice of it, for longer than the answer takes.
    await Bun.sleep(1);
    Atomics.notify(words, 0);
    await Bun.sleep(1);
  }
});
