import { describe, expect, test } from 'bun:test';
import type { Request } from '../../src/scheduler/request.ts';
import { generateAlone, makeRequest, range } from './fixtures.ts';
import { add, machine, output, runToEnd, step } from './machine.ts';

describe('prefix cache', () => {
  test('the copies of an n > 1 request, admitted in one step, compute their prompt once', () => {
    const m = machine({ maxNumBatchedTokens: 64 });
    const copies = range(4).map(() => makeRequest(range(22), { maxTokens: 3 }));
    add(m.scheduler, ...copies);
    const { newRequests } = step(m).scheduled;
    expect(newRequests.map(({ numScheduledTokens }) => numScheduledTokens)).toEqual([22, 2, 2, 2]);
    expect(newRequests[3]!.blockIds[0]!.slice(0, 5)).toEqual(newRequests[0]!.blockIds[0]!.slice(0, 5));
    while (m.scheduler.hasRequests()) step(m);
    for (const copy of copies) expect(output(copy)).toEqual(generateAlone(copy, 64).output);
    expect(copies.map(({ numCachedTokens }) => numCachedTokens)).toEqual([0, 20, 20, 20]);
    expect(m.scheduler.stats()).toMatchObject({ prefixCacheQueries: 88, prefixCacheHits: 60 });
  });

  test('a later turn of a conversation finds the answer too, whatever is in flight', () => {
    for (const depth of [1, 2]) {
      const m = machine();
      const first = makeRequest(range(10), { maxTokens: 7 });
      add(m.scheduler, first);
      runToEnd(m, depth);
      // 16 tokens are computed: the last one's keys never were, or are written in vain.
      const second = makeRequest([...first.tokenIds, 5, 6, 7]);
      add(m.scheduler, second);
      step(m);
      expect(second.numCachedTokens).toBe(16);
    }
  });

  test('prompt log probabilities are computed, not skipped, and other requests may use what they left', () => {
    const m = machine();
    const [a, b] = [makeRequest(range(12)), makeRequest(range(12), { promptLogprobs: 0 })];
    add(m.scheduler, a!, b!);
    const { scheduled, result } = step(m);
    expect(scheduled.newRequests.map(({ numScheduledTokens }) => numScheduledTokens)).toEqual([12, 12]);
    expect([...result.promptLogprobs[1]!.tokenIds]).toEqual(range(11, 1));
    expect(m.scheduler.stats().prefixCacheQueries).toBe(12);
  });

  test('hits are what a list of all prefixes seen would give, while nothing is evicted', () => {
    let numHits = 0;
    for (let seed = 1; seed <= 200; seed++) numHits += compareWithPrefixList(seed);
    expect(numHits).toBeGreaterThan(1000);
  });

  test('reset waits for running requests', () => {
    const m = machine();
    const request = makeRequest(range(12));
    add(m.scheduler, request);
    step(m);
    expect(m.scheduler.resetPrefixCache()).toBe(false);
    m.scheduler.finishRequests([request.key], 'abort');
    expect(m.scheduler.resetPrefixCache()).toBe(true);
    const again = makeRequest(range(12));
    add(m.scheduler, again);
    step(m);
    expect(again.numCachedTokens).toBe(0);
  });
});

/** Random requests on a large cache; gives the number of tokens found. */
function compareWithPrefixList(seed: number): number {
  let state = seed;
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % n;
  };
  const m = machine(
    { maxNumBatchedTokens: 8 + random(60), maxNumSeqs: 1 + random(6) },
    2000,
    [[0], [7], [0, 5]][random(3)],
  );
  const seen = new Set<string>();
  const requests = range(12).map(() => {
    const numShared = random(40);
    const prompt = [...range(numShared), ...range(1 + random(8), 100 + random(3))];
    return makeRequest(prompt, { maxTokens: 1 + random(8) }, { cacheSalt: ['a', 'b'][random(2)]! });
  });
  const byKey = new Map(requests.map((request) => [request.key, request]));
  const prefix = (request: Request, length: number) => `${request.cacheSalt}:${request.tokenIds.subarray(0, length)}`;
  add(m.scheduler, ...requests);
  let numHits = 0;
  while (m.scheduler.hasRequests()) {
    const scheduled = m.scheduler.schedule();
    for (const entry of [...scheduled.cachedRequests, ...scheduled.newRequests]) {
      const request = byKey.get(entry.key)!;
      if ('requestId' in entry) {
        let hit = 0;
        while (hit + 4 < request.numTokens && seen.has(prefix(request, hit + 4))) hit += 4;
        expect(entry.numComputedTokens).toBe(hit);
        numHits += hit;
      }
      for (let n = 4; n <= entry.numComputedTokens + entry.numScheduledTokens; n += 4) seen.add(prefix(request, n));
    }
    m.scheduler.updateFromOutput(scheduled, m.worker.execute(scheduled));
  }
  expect(m.scheduler.stats().prefixCacheHits).toBe(numHits);
  return numHits;
}
