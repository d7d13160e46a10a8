import { describe, expect, test } from 'bun:test';
import type { SamplingParams } from '../../src/sampling/sampling-params.ts';
import { checkStop, type Stop } from '../../src/scheduler/check-stop.ts';
import { makeRequest } from './fixtures.ts';

const EOS = 0;

/** After a prompt of three tokens and this output. */
function stop(output: number[], params: Partial<SamplingParams>, maxModelLen = 100): Stop | null {
  const request = makeRequest([1, 2, 3], { ignoreEos: false, maxTokens: 50, ...params });
  for (const token of output) request.appendToken(token);
  return checkStop(request, maxModelLen);
}

describe('checkStop', () => {
  test('EOS ends the text without a stop reason, unless ignored', () => {
    expect(stop([5, EOS], {})).toEqual({ finishReason: 'stop', stopReason: null });
    expect(stop([5, EOS], { ignoreEos: true })).toBeNull();
    expect(stop([EOS, 5], {})).toBeNull();
  });

  test('a stop token is the stop reason, EOS too if it was asked for while EOS is ignored', () => {
    expect(stop([5], { stopTokenIds: [4, 5] })).toEqual({ finishReason: 'stop', stopReason: 5 });
    expect(stop([EOS], { stopTokenIds: [EOS] })?.stopReason).toBeNull();
    expect(stop([EOS], { stopTokenIds: [EOS], ignoreEos: true })?.stopReason).toBe(EOS);
  });

  test('nothing stops before min_tokens, but the lengths do', () => {
    expect(stop([EOS], { minTokens: 2 })).toBeNull();
    expect(stop([5], { minTokens: 2, stopTokenIds: [5] })).toBeNull();
    expect(stop([5, EOS], { minTokens: 2 })?.finishReason).toBe('stop');
    expect(stop([5], { minTokens: 2 }, 4)).toEqual({ finishReason: 'length', stopReason: null });
  });

  test('max_tokens and the model length end it by length, a stop in the last place by stop', () => {
    expect(stop([5, 6], { maxTokens: 2 })).toEqual({ finishReason: 'length', stopReason: null });
    expect(stop([5, 6], { maxTokens: 3 })).toBeNull();
    expect(stop([5, 6], {}, 5)?.finishReason).toBe('length');
    expect(stop([5, 6], {}, 6)).toBeNull();
    expect(stop([5, EOS], { maxTokens: 2 })?.finishReason).toBe('stop');
  });

  test('a repetition ends it, unless something else does or the least number of tokens is not there', () => {
    const repetitionDetection = { minPatternSize: 1, maxPatternSize: 2, minCount: 3 };
    expect(stop([5, 6, 5, 6, 5, 6], { repetitionDetection })).toEqual({ finishReason: 'repetition', stopReason: null });
    expect(stop([5, 6, 5, 6, 5], { repetitionDetection })).toBeNull();
    expect(stop([5, 6, 5, 6, 5, 6], { repetitionDetection, minTokens: 7 })).toBeNull();
    expect(stop([5, 5, 5], { repetitionDetection, stopTokenIds: [5] })).toMatchObject({ finishReason: 'stop' });
    expect(stop([5, 5, 5], { repetitionDetection, maxTokens: 3 })).toMatchObject({ finishReason: 'length' });
  });
});
