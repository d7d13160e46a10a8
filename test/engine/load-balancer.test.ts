import { describe, expect, test } from 'bun:test';
import { LoadBalancer } from '../../src/engine/load-balancer.ts';

function cores(...running: number[]) {
  return running.map((numRunning) => ({
    status: { numRunning, numWaiting: 0, kvCacheUsage: 0 },
    numUnreceived: 0,
  }));
}

/** `length` tokens that start with `seed`, so that prompts of different seeds share nothing. */
function prompt(seed: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => seed * 1000 + (i % 500));
}

describe('load balancer', () => {
  test('one core takes all', () => {
    expect(new LoadBalancer(cores(100)).choose(prompt(1, 10))).toBe(0);
  });

  test('the least loaded core is chosen; waiting requests weigh more than running ones', () => {
    expect(new LoadBalancer(cores(5, 1, 3)).choose(prompt(1, 10))).toBe(1);
    const loads = cores(0, 3);
    loads[0]!.status.numWaiting = 1;
    expect(new LoadBalancer(loads).choose(prompt(1, 10))).toBe(1);
  });

  test('requests that the core has not received yet count as waiting', () => {
    const loads = cores(0, 0);
    loads[0]!.numUnreceived = 1;
    expect(new LoadBalancer(loads).choose(prompt(1, 10))).toBe(1);
  });

  test('equally loaded cores take turns', () => {
    const balancer = new LoadBalancer(cores(0, 0, 0));
    const chosen = [1, 2, 3, 4, 5, 6].map((seed) => balancer.choose(prompt(seed, 10)));
    expect(chosen).toEqual([0, 1, 2, 0, 1, 2]);
  });

  test('the KV cache use decides between cores with the same queue', () => {
    const loads = cores(2, 2);
    loads[0]!.status.kvCacheUsage = 0.9;
    expect(new LoadBalancer(loads).choose(prompt(1, 10))).toBe(1);
  });

  test('a conversation stays on its core as it grows', () => {
    const loads = cores(0, 0, 0);
    const balancer = new LoadBalancer(loads);
    balancer.choose(prompt(9, 10));
    const first = balancer.choose(prompt(1, 100));
    for (const length of [150, 300, 1000]) {
      loads[first]!.status.numRunning = 3;
      expect(balancer.choose(prompt(1, length))).toBe(first);
    }
  });

  test('the same text under another adapter is another prefix', () => {
    const balancer = new LoadBalancer(cores(0, 0, 0));
    const adapters = [null, 1, 2];
    const chosen = adapters.map((loraId) => balancer.choose(prompt(1, 200), loraId));
    expect(chosen).toEqual([0, 1, 2]);
    expect(adapters.map((loraId) => balancer.choose(prompt(1, 300), loraId))).toEqual(chosen);
  });

  test('a core that is much busier loses its conversations', () => {
    const loads = cores(0, 0);
    const balancer = new LoadBalancer(loads);
    const first = balancer.choose(prompt(1, 200));
    loads[first]!.status.numRunning = 20;
    expect(balancer.choose(prompt(1, 200))).toBe(1 - first);
    // It has moved: the other core holds the prefix now.
    loads[first]!.status.numRunning = 0;
    expect(balancer.choose(prompt(1, 300))).toBe(1 - first);
  });
});
