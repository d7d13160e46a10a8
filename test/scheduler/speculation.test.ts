import { describe, expect, test } from 'bun:test';
import type { Request } from '../../src/scheduler/request.ts';
import { generateAlone, makeRequest, range } from './fixtures.ts';
import { add, type Machine, machine, output, step } from './machine.ts';

describe('speculative tokens', () => {
  /** A request that has computed its prompt, and what the model says next. */
  function decoding(m: Machine, maxTokens = 10): { request: Request; future: number[] } {
    const request = makeRequest(range(6), { maxTokens });
    add(m.scheduler, request);
    step(m);
    return { request, future: generateAlone(request, 64).output.slice(1) };
  }

  const wrong = (token: number) => (token + 1) % 12;

  test('accepted drafts are kept with the token behind them', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 3) }]);
    const { scheduled } = step(m);
    expect(scheduled.cachedRequests[0]).toMatchObject({ numScheduledTokens: 4, specTokenIds: future.slice(0, 3) });
    expect(request.numOutputTokens).toBe(5);
    expect(request.numComputedTokens).toBe(request.numTokens - 1);
  });

  test('rejected drafts are computed in vain', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: [future[0]!, wrong(future[1]!), future[2]!] }]);
    step(m);
    expect(request.numOutputTokens).toBe(3);
    expect(request.numComputedTokens).toBe(request.numTokens - 1);
    while (m.scheduler.hasRequests()) step(m);
    expect(output(request)).toEqual(generateAlone(request, 64).output);
  });

  test('tokens behind a stop are dropped, with their log probabilities', () => {
    const m = machine();
    const { request, future } = decoding(m);
    request.samplingParams.stopTokenIds = [future[1]!];
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 4) }]);
    const scheduled = m.scheduler.schedule();
    const [update] = m.scheduler.updateFromOutput(scheduled, m.worker.execute(scheduled));
    const kept = future.slice(0, future.indexOf(future[1]!) + 1);
    expect(update!.newTokenIds).toEqual(kept);
    expect([...update!.newLogprobs!.tokenIds]).toEqual(kept);
    expect([update!.finishReason, update!.stopReason]).toEqual(['stop', future[1]!]);
  });

  test('no more drafts than the request, or the budget, has room for', () => {
    const m = machine({ maxNumBatchedTokens: 6 });
    const { request, future } = decoding(m, 4);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 3) }]);
    expect(m.scheduler.schedule().cachedRequests[0]!.specTokenIds).toEqual(future.slice(0, 2));
    const small = machine({ maxNumBatchedTokens: 2 });
    const other = decoding(small);
    step(small);
    step(small);
    small.scheduler.updateDraftTokens([{ key: other.request.key, tokenIds: other.future.slice(0, 3) }]);
    expect(small.scheduler.schedule().cachedRequests[0]!.specTokenIds).toEqual(other.future.slice(0, 1));
  });

  test('with drafts in flight a request waits for their verification, and takes no new ones', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 2) }]);
    m.scheduler.schedule();
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: [1] }]);
    expect(m.scheduler.schedule().totalNumScheduledTokens).toBe(0);
    expect(request.specTokenIds).toEqual([]);
  });

  test('drafts are counted, each with what held of it', () => {
    const m = machine();
    const { request, future } = decoding(m, 20);
    const counts = () => {
      const { numDrafts, numDraftTokens, numAcceptedTokens, acceptedPerPosition } = m.scheduler.stats();
      return { numDrafts, numDraftTokens, numAcceptedTokens, acceptedPerPosition };
    };
    step(m);
    expect(counts()).toEqual({ numDrafts: 0, numDraftTokens: 0, numAcceptedTokens: 0, acceptedPerPosition: [] });
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: [future[1]!, wrong(future[2]!), future[3]!] }]);
    step(m);
    expect(counts()).toEqual({ numDrafts: 1, numDraftTokens: 3, numAcceptedTokens: 1, acceptedPerPosition: [1, 0, 0] });
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(3, 5) }]);
    step(m);
    expect(counts()).toEqual({ numDrafts: 2, numDraftTokens: 5, numAcceptedTokens: 3, acceptedPerPosition: [2, 1, 0] });
  });

  test('drafts that no step had room for are not', () => {
    const m = machine();
    const { request, future } = decoding(m, 3);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 3) }]);
    step(m);
    expect(m.scheduler.stats()).toMatchObject({ numDrafts: 1, numDraftTokens: 1, numAcceptedTokens: 1 });
  });
});
