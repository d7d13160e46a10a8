import { describe, expect, test } from 'bun:test';
import { adapter, makeRequest, range } from './fixtures.ts';
import { machine, runToEnd, step } from './machine.ts';

describe('adapters', () => {
  const withAdapter = (id: number, maxTokens = 3) => makeRequest(range(4), { maxTokens }, { lora: adapter(id) });

  test('at most max_loras run at once; the others are passed over, by requests of the base model too', () => {
    const m = machine({ maxLoras: 2 });
    const [a, b, c, again, base] = [
      withAdapter(1),
      withAdapter(2),
      withAdapter(3),
      withAdapter(1),
      makeRequest(range(4)),
    ];
    for (const request of [a, b, c, again, base]) m.scheduler.addRequest(request);
    const { scheduled } = step(m);
    expect(scheduled.newRequests.map(({ key }) => key)).toEqual([a, b, again, base].map(({ key }) => key));
    expect(scheduled.newRequests.map(({ lora }) => lora?.id ?? null)).toEqual([1, 2, 1, null]);
    expect(m.scheduler.stats().runningLoraAdapters).toEqual(['adapter-1', 'adapter-2']);
    expect(m.scheduler.stats().waitingLoraAdapters).toEqual(['adapter-3']);
    m.scheduler.finishRequests([b.key], 'abort');
    expect(step(m).scheduled.newRequests.map(({ key }) => key)).toEqual([c.key]);
    runToEnd(m, 1);
    expect(m.scheduler.stats().runningLoraAdapters).toEqual([]);
  });

  test('who is passed over waits no longer than as many admissions as run at once', () => {
    const m = machine({ maxLoras: 1, maxNumSeqs: 3 });
    const first = withAdapter(1, 2);
    const other = withAdapter(2);
    m.scheduler.addRequest(first);
    m.scheduler.addRequest(other);
    let numBefore = 0;
    // Requests of the running adapter never end to come.
    for (let i = 0; i < 50 && other.status === 'waiting'; i++) {
      m.scheduler.addRequest(withAdapter(1, 2));
      const { scheduled } = step(m);
      numBefore += scheduled.newRequests.filter(({ lora }) => lora?.id === 1).length;
    }
    expect(other.status).toBe('running');
    expect(numBefore).toBeLessThanOrEqual(4);
    runToEnd(m, 1);
  });

  test('a request whose adapter can not be read ends with an error, and its blocks are free', () => {
    const m = machine({ maxLoras: 1 });
    const broken = withAdapter(1);
    const base = makeRequest(range(4), { maxTokens: 2 });
    m.scheduler.addRequest(broken);
    m.scheduler.addRequest(base);
    const scheduled = m.scheduler.schedule();
    const next = m.scheduler.schedule();
    const result = { ...m.worker.execute(scheduled), failures: [{ key: broken.key, message: 'gone' }] };
    const updates = m.scheduler.updateFromOutput(scheduled, result);
    expect(updates.map(({ request, finishReason }) => [request, finishReason])).toEqual([
      [broken, 'error'],
      [base, null],
    ]);
    expect(updates[0]).toMatchObject({ newTokenIds: [], failure: { fault: 'server', message: 'gone' } });
    // It is in the step in flight too, whose result of it is dropped.
    const late = m.scheduler.updateFromOutput(next, m.worker.execute(next));
    expect(late.map(({ request }) => request)).toEqual([base]);
    expect(m.scheduler.stats().kvCacheUsage).toBe(0);
  });
});
