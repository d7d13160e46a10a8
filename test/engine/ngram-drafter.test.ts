import { describe, expect, test } from 'bun:test';
import type { NgramConfig } from '../../src/config/speculative-config.ts';
import { NgramDrafter } from '../../src/engine/core/ngram-drafter.ts';
import type { Request } from '../../src/scheduler/request.ts';
import { makeRequest } from '../scheduler/fixtures.ts';

const CONFIG: NgramConfig = { method: 'ngram', numSpeculativeTokens: 3, promptLookupMin: 2, promptLookupMax: 4 };

/** A request between two steps: all its tokens but the last are computed. */
function decoding(tokens: number[]): Request {
  const request = makeRequest(tokens);
  request.status = 'running';
  request.numComputedTokens = tokens.length - 1;
  return request;
}

function draftsOf(tokens: number[], config: Partial<NgramConfig> = {}): number[] | null {
  const [drafts] = new NgramDrafter({ ...CONFIG, ...config }).propose([decoding(tokens)]);
  return drafts?.tokenIds ?? null;
}

describe('drafts are what stood behind the last tokens before', () => {
  test.each<[string, number[], Partial<NgramConfig>, number[] | null]>([
    ['nothing stood before', [1, 2, 3, 4, 5], {}, null],
    ['one token is too few', [1, 9, 2, 3, 9], {}, null],
    ['unless one is enough', [1, 9, 2, 3, 9], { promptLookupMin: 1 }, [2, 3, 9]],
    ['as few as the least', [1, 2, 5, 6, 7, 8, 1, 2], {}, [5, 6, 7]],
    ['the longest goes before a later one', [4, 1, 2, 5, 6, 7, 3, 1, 2, 8, 9, 9, 4, 1, 2], {}, [5, 6, 7]],
    ['of equals the latest counts', [1, 2, 5, 5, 5, 1, 2, 6, 6, 6, 1, 2], {}, [6, 6, 6]],
    [
      'what is longer than the most is no better',
      [3, 1, 2, 5, 5, 5, 1, 2, 6, 6, 6, 3, 1, 2],
      { promptLookupMax: 2 },
      [6, 6, 6],
    ],
    ['from the very start', [1, 2, 3, 9, 8, 7, 1, 2, 3], {}, [9, 8, 7]],
    ['as many as are asked for', [1, 2, 3, 4, 5, 6, 7, 1, 2], { numSpeculativeTokens: 5 }, [3, 4, 5, 6, 7]],
    ['a text that repeats itself goes on', [7, 1, 2, 1, 2], { numSpeculativeTokens: 5 }, [1, 2, 1, 2, 1]],
    ['one token over and over', [7, 7, 7], {}, [7, 7, 7]],
    ['a match may overlap what it matches', [1, 1, 1, 1, 1, 1], { promptLookupMin: 4 }, [1, 1, 1]],
    ['fewer tokens than an n-gram', [1], { promptLookupMin: 4 }, null],
  ])('%s', (_, tokens, config, drafts) => {
    expect(draftsOf(tokens, config)).toEqual(drafts);
  });

  test('as a search that tries every n-gram finds', () => {
    let state = 12345;
    const next = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 16) % below;
    };
    for (let round = 0; round < 300; round++) {
      const tokens = Array.from({ length: 1 + next(60) }, () => next(2 + (round % 4)));
      const promptLookupMin = 1 + next(4);
      const config = { promptLookupMin, promptLookupMax: promptLookupMin + next(4) };
      expect(draftsOf(tokens, config)).toEqual(slowDrafts(tokens, { ...CONFIG, ...config }));
    }
  });
});

test('each request has its own, under its key, and those that have none are left out', () => {
  const requests = [decoding([1, 2, 3, 1, 2]), decoding([1, 2, 3]), decoding([4, 5, 6, 7, 4, 5])];
  const key = (i: number) => requests[i]!.key;
  expect(new NgramDrafter(CONFIG).propose(requests)).toEqual([
    { key: key(0), tokenIds: [3, 1, 2] },
    { key: key(2), tokenIds: [6, 7, 4] },
  ]);
});

describe('a request is left out', () => {
  test.each<[string, (request: Request) => void]>([
    ['that is finished', (request) => (request.status = 'finished-stop')],
    ['that lost its blocks', (request) => (request.status = 'preempted')],
    ['of which a step in flight samples a token', (request) => (request.numOutputPlaceholders = 1)],
    ['whose prompt is not all computed', (request) => (request.numComputedTokens = 2)],
  ])('%s', (_, change) => {
    const request = decoding([1, 2, 3, 1, 2]);
    change(request);
    expect(new NgramDrafter(CONFIG).propose([request])).toEqual([]);
  });
});

function slowDrafts(tokens: number[], { promptLookupMin, promptLookupMax, numSpeculativeTokens }: NgramConfig) {
  for (let length = promptLookupMax; length >= promptLookupMin; length--) {
    const tail = tokens.slice(-length).join();
    for (let start = tokens.length - length - 1; start >= 0; start--) {
      if (tokens.slice(start, start + length).join() !== tail) continue;
      const longer = [...tokens];
      for (let i = 0; i < numSpeculativeTokens; i++) longer.push(longer[start + length + i]!);
      return longer.slice(tokens.length);
    }
  }
  return null;
}
