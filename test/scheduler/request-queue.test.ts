import { describe, expect, test } from 'bun:test';
import type { Request } from '../../src/scheduler/request.ts';
import { RequestQueue, requestOrder } from '../../src/scheduler/request-queue.ts';
import { makeRequest, range } from './fixtures.ts';

function drain(queue: RequestQueue): Request[] {
  const drained: Request[] = [];
  for (let head = queue.peek(); head !== null; head = queue.peek()) {
    queue.remove(head);
    drained.push(head);
  }
  return drained;
}

/** Numbered in order of arrival; arrival times lie, as those of several front ends may. */
const arrivals = (priorities: number[]) =>
  priorities.map((priority, i) => {
    const request = makeRequest([1], {}, { priority, arrivalTimeMs: (i * 7) % 5 });
    request.sequence = i;
    return request;
  });

describe('RequestQueue', () => {
  test('fcfs serves in order of arrival, and whoever comes back first', () => {
    const [a, b, c, d] = arrivals([3, 2, 1, 0]);
    const queue = new RequestQueue(requestOrder('fcfs'));
    for (const request of [c!, d!, b!]) queue.push(request);
    expect(queue.peek()).toBe(b!);
    queue.push(a!);
    expect(drain(queue)).toEqual([a!, b!, c!, d!]);
  });

  test('priority serves the lowest value first, then the earliest', () => {
    const requests = arrivals([1, 0, 1, 0, -1, 1]);
    const queue = new RequestQueue(requestOrder('priority'));
    for (const request of requests) queue.push(request);
    const keys = drain(queue).map(({ priority, arrivalTimeMs }) => [priority, arrivalTimeMs]);
    expect(keys).toEqual([
      [-1, 3],
      [0, 1],
      [0, 2],
      [1, 0],
      [1, 0],
      [1, 4],
    ]);
  });

  test('requests can leave from anywhere', () => {
    const numbers = range(60).map((i) => (i * 37) % 60);
    for (const step of [2, 3, 7]) {
      const requests = arrivals(numbers);
      const queue = new RequestQueue(requestOrder('priority'));
      for (const request of requests) queue.push(request);
      const leaving = requests.filter((_, i) => i % step === 0);
      for (const request of leaving) queue.remove(request);
      expect(queue.size).toBe(60 - leaving.length);
      expect(() => queue.remove(leaving[0]!)).toThrow('not in the queue');
      const left = requests.filter((_, i) => i % step !== 0).map(({ priority }) => priority);
      expect(drain(queue).map(({ priority }) => priority)).toEqual(left.sort((a, b) => a - b));
    }
  });
});
