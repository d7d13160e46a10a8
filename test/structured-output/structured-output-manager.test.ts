import { describe, expect, test } from 'bun:test';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import { Request } from '../../src/scheduler/request.ts';
import type { SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { StructuredOutputManager } from '../../src/structured-output/structured-output-manager.ts';
import { CountingBackend } from './counting-backend.ts';

function setUp(startsAfter: number[] | null = null) {
  const backend = new CountingBackend();
  const manager = new StructuredOutputManager(() => backend);
  const request = new Request({
    key: 7,
    clientIndex: 0,
    handle: 1,
    requestId: 'r',
    promptTokenIds: Int32Array.of(9, 9),
    samplingParams: { ...DEFAULT_SAMPLING_PARAMS, structuredOutputs: { kind: 'regex', text: '', startsAfter } },
    eosTokenIds: [0],
    seed: 1n,
    arrivalTimeMs: 0,
    priority: 0,
    cacheSalt: null,
    lora: null,
  });
  const row = (numScheduledTokens: number) => ({
    key: 7,
    newBlockIds: [],
    numComputedTokens: request.numTokens - 1,
    numScheduledTokens,
    specTokenIds: [],
  });
  const step = (numScheduledTokens = 1): SchedulerOutput => ({
    newRequests: [],
    cachedRequests: [row(numScheduledTokens)],
    totalNumScheduledTokens: numScheduledTokens,
    releasedKeys: [],
    grammarBitmask: null,
    forcedTokens: [],
    waitsForLogits: false,
  });
  const sample = (tokenId: number) => {
    request.appendToken(tokenId);
    return manager.advance({
      request,
      newTokenIds: [tokenId],
      newLogprobs: null,
      newPromptLogprobs: null,
      poolerOutput: null,
      finishReason: null,
      stopReason: null,
      failure: null,
      isFirst: false,
    });
  };
  return { backend, manager, request, step, sample };
}

describe('StructuredOutputManager', () => {
  test('a request waits until its grammar is compiled', () => {
    const { backend, manager, request } = setUp();
    manager.add(request);
    expect(manager.admit()).toEqual({ ready: [], failed: [] });
    expect(manager.numWaiting).toBe(1);
    backend.status = 'ready';
    expect(manager.admit().ready).toEqual([request]);
    expect(manager.numWaiting).toBe(0);
  });

  test('a grammar that fails gives its reason and leaves nothing', () => {
    const { backend, manager, request } = setUp();
    manager.add(request);
    backend.status = 'failed';
    expect(manager.admit().failed).toEqual([{ request, reason: 'bad grammar' }]);
    expect(backend.live).toBe(0);
  });

  test('masks follow the tokens; after the last one the text has ended', () => {
    const { backend, manager, request, step, sample } = setUp();
    manager.add(request);
    backend.status = 'ready';
    manager.admit();
    expect(manager.bitmask(step())).toEqual({ keys: [7], wordsPerRow: 1, words: Int32Array.of(1 << 1) });
    expect(manager.bitmask(step(0))).toBeNull();
    for (const id of [1, 2, 3]) {
      expect(sample(id)).toBe('going-on');
      expect(manager.settle(false)).toEqual({ held: new Set(), deadEnds: [] });
      expect(manager.bitmask(step())!.words[0]).toBe(1 << (id + 1));
    }
    expect(sample(5)).toBe('ended');
    manager.release(7);
    expect(backend.live).toBe(0);
  });

  test('a token outside of the grammar, and a mask that can not be made, end the request', () => {
    const wrong = setUp();
    wrong.manager.add(wrong.request);
    wrong.backend.status = 'ready';
    wrong.manager.admit();
    expect(wrong.sample(2)).toBe('going-on');
    expect(wrong.manager.settle(false).deadEnds).toEqual([wrong.request]);
    expect(wrong.manager.settle(false).deadEnds).toEqual([]);

    const broken = setUp();
    broken.manager.add(broken.request);
    broken.backend.status = 'ready';
    broken.manager.admit();
    broken.sample(1);
    broken.backend.breaks = true;
    expect(broken.manager.settle(false).deadEnds).toEqual([broken.request]);

    const late = setUp();
    late.manager.add(late.request);
    late.backend.status = 'ready';
    late.backend.breaks = true;
    expect(late.manager.admit().failed).toEqual([{ request: late.request, reason: 'the grammar is too complex' }]);
    expect(late.backend.live).toBe(0);
  });

  test('a request whose mask is not ready is held, and its mask waited for once', () => {
    const { backend, manager, request, step, sample } = setUp();
    backend.status = 'ready';
    backend.looksUntilReady = 3;
    manager.add(request);
    for (let look = 0; look < 3; look++) expect(manager.admit().ready).toEqual([]);
    expect(manager.admit().ready).toEqual([request]);
    expect(backend.waits).toEqual([]);
    for (const id of [1, 2]) {
      sample(id);
      backend.waits.length = 0;
      for (let look = 0; look < 3; look++) expect([...manager.settle(false).held]).toEqual([7]);
      expect(backend.waits).toEqual([expect.any(Number)]);
      expect([...manager.settle(false).held]).toEqual([]);
      expect(manager.bitmask(step())!.words[0]).toBe(1 << (id + 1));
    }
  });

  test('the mask of a request that is alone is made at once', () => {
    const { backend, manager, request, sample } = setUp();
    backend.status = 'ready';
    manager.add(request);
    manager.admit();
    backend.looksUntilReady = 3;
    backend.worksNow = true;
    sample(1);
    expect([...manager.settle(false).held]).toEqual([7]);
    for (let look = 0; look < 3; look++) manager.settle(false);
    sample(2);
    expect(manager.settle(true)).toEqual({ held: new Set(), deadEnds: [] });
  });

  test('one that is aborted while its mask is made leaves nothing', () => {
    const { backend, manager, request, sample } = setUp();
    backend.status = 'ready';
    manager.add(request);
    manager.admit();
    backend.looksUntilReady = 3;
    sample(1);
    manager.release(7);
    expect(manager.settle(false)).toEqual({ held: new Set(), deadEnds: [] });
    expect(backend.live).toBe(0);
  });

  test('the constraint begins behind the tokens that it starts after', () => {
    const { backend, manager, request, step, sample } = setUp([4, 5]);
    manager.add(request);
    backend.status = 'ready';
    manager.admit();
    for (const id of [5, 4]) {
      expect(manager.bitmask(step())).toBeNull();
      expect(sample(id)).toBe('going-on');
    }
    expect(sample(5)).toBe('going-on');
    expect(manager.bitmask(step())!.words[0]).toBe(1 << 1);
    expect(sample(1)).toBe('going-on');
    expect(manager.settle(false).deadEnds).toEqual([]);
    expect(manager.bitmask(step())!.words[0]).toBe(1 << 2);
  });

  test('an abort while compiling frees the grammar', () => {
    const { backend, manager, request } = setUp();
    manager.add(request);
    manager.release(7);
    expect(backend.live).toBe(0);
    expect(manager.numWaiting).toBe(0);
    expect(manager.admit()).toEqual({ ready: [], failed: [] });
  });
});
