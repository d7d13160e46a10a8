import { describe, expect, test } from 'bun:test';
import { SleepControl } from '../../src/engine/core/sleep-control.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { MemoryTag } from '../../src/worker/memory-tags.ts';
import { DEFAULT_OPTIONS, kvConfig, makeRequest, range } from '../scheduler/fixtures.ts';

function setUp({ failing = false } = {}) {
  const calls: string[] = [];
  const executor = {
    sleep: () => {
      calls.push('sleep');
    },
    wakeUp: async (tags: readonly MemoryTag[]) => {
      if (failing) throw new Error('the weights are gone');
      calls.push(`wake ${tags.join(' ')}`);
    },
  };
  const scheduler = new Scheduler(DEFAULT_OPTIONS, kvConfig(100, 4, [0]));
  const control = new SleepControl(executor, scheduler, () => calls.push('abort all'));
  const replies: (string | null)[] = [];
  const reply = (error: string | null) => replies.push(error);
  const proceed = async () => {
    while (control.isDue) await control.proceed();
  };
  return { calls, scheduler, control, replies, reply, proceed };
}

describe('sleep', () => {
  test('frees memory once, and only at levels 1 and 2', async () => {
    const { calls, control, scheduler, reply, replies, proceed } = setUp();
    control.sleep(0, 'keep', reply);
    expect(scheduler.pauseState).toBe('paused-all');
    await proceed();
    expect([control.level, calls]).toEqual([0, []]);
    control.sleep(1, 'keep', reply);
    control.sleep(2, 'keep', reply);
    await proceed();
    expect([control.level, calls, replies]).toEqual([2, ['sleep'], [null, null, null]]);
  });

  test('mode wait lets running requests end first', async () => {
    const { calls, control, scheduler, reply, replies, proceed } = setUp();
    const request = makeRequest(range(4));
    scheduler.addRequest(request);
    scheduler.schedule();
    control.sleep(1, 'wait', reply);
    await proceed();
    expect([scheduler.pauseState, calls, replies]).toEqual(['paused-new', [], []]);
    scheduler.finishRequests([request.key], 'stop');
    await proceed();
    expect([scheduler.pauseState, calls, replies]).toEqual(['paused-all', ['sleep'], [null]]);
  });

  test('mode abort ends requests at once', () => {
    const { calls, control, reply } = setUp();
    control.sleep(1, 'abort', reply);
    expect(calls).toEqual(['abort all']);
  });
});

describe('waking', () => {
  test('does not undo the pause of a sleep that was asked for since', async () => {
    const { control, scheduler, reply, replies } = setUp();
    scheduler.addRequest(makeRequest(range(4)));
    scheduler.schedule();
    control.sleep(0, 'keep', reply);
    await control.proceed();
    control.wakeUp(['weights', 'kv_cache', 'scheduling'], reply);
    control.sleep(1, 'wait', reply);
    await control.proceed();
    expect([control.level, scheduler.pauseState, control.isDue]).toEqual([null, 'paused-new', false]);
    expect(replies).toEqual([null, null]);
  });

  test('by tags: scheduling comes back with the last of the memory', async () => {
    const { calls, control, scheduler, reply, proceed } = setUp();
    control.sleep(1, 'abort', reply);
    control.wakeUp(['weights'], reply);
    await proceed();
    expect([control.level, scheduler.pauseState]).toEqual([1, 'paused-all']);
    control.wakeUp(['weights', 'kv_cache'], reply);
    await proceed();
    expect([control.level, scheduler.pauseState]).toEqual([null, 'unpaused']);
    expect(calls).toEqual(['abort all', 'sleep', 'wake weights', 'wake kv_cache']);
  });

  test('from level 0 by the tag scheduling', async () => {
    const { calls, control, scheduler, reply, proceed } = setUp();
    control.sleep(0, 'keep', reply);
    control.wakeUp(['scheduling'], reply);
    await proceed();
    expect([control.level, scheduler.pauseState, calls]).toEqual([null, 'unpaused', []]);
  });

  test('that fails is told, and the core sleeps on', async () => {
    const { control, scheduler, reply, replies, proceed } = setUp({ failing: true });
    control.sleep(1, 'abort', reply);
    control.wakeUp(['weights', 'kv_cache', 'scheduling'], reply);
    await proceed();
    expect(replies).toEqual([null, 'the weights are gone']);
    expect([control.level, scheduler.pauseState]).toEqual([1, 'paused-all']);
  });
});
