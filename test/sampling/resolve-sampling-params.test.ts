import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { pythonFloat, pythonList, pythonQuote } from '../../src/errors/parameter-error.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';
import {
  resolveSamplingParams,
  type SamplingContext,
  type SamplingFields,
} from '../../src/sampling/resolve-sampling-params.ts';
import type { DefaultSamplingParams } from '../../src/sampling/sampling-params.ts';
import { SAMPLING_RANGES } from '../../src/sampling/sampling-ranges.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const tokenizer = await createTokenizer(join(import.meta.dir, '../../models/demo'), { mode: 'js' });
const context: SamplingContext = {
  defaults: {},
  maxTokens: 16,
  logprobs: null,
  promptLogprobs: null,
  outputKind: 'delta',
  vocabSize: 2048,
  maxLogprobs: 20,
  tokenizer,
};

function resolve(fields: SamplingFields, changes: Partial<SamplingContext> = {}) {
  return resolveSamplingParams(fields, { ...context, ...changes });
}

function refusal(fields: SamplingFields, changes: Partial<SamplingContext> = {}): ValidationError {
  try {
    resolve(fields, changes);
  } catch (error) {
    if (error instanceof ValidationError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('defaults', () => {
  test("the request's, then the model's, then OpenAI's", () => {
    const defaults = { temperature: 0.6, top_p: 0.95, top_k: 20, min_p: 0.1, repetition_penalty: 1.1 };
    expect(resolve({ top_p: 0.5, min_p: null }, { defaults })).toMatchObject({
      temperature: 0.6,
      topP: 0.5,
      topK: 20,
      minP: 0.1,
      repetitionPenalty: 1.1,
    });
    expect(resolve({})).toMatchObject({ temperature: 1, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, n: 1 });
  });

  test('greedy looks at nothing but the best token', () => {
    const params = resolve({ temperature: 0, top_p: 0.5, top_k: 3, min_p: 0.2 });
    expect(params).toMatchObject({ temperature: 0, topP: 1, topK: 0, minP: 0 });
  });

  test('what counts as another value', () => {
    expect(resolve({ temperature: 1e-4 }).temperature).toBe(0.01);
    expect(resolve({ seed: -1 }).seed).toBeNull();
    expect(resolve({ top_k: -1 }).topK).toBe(0);
    // As many as there are, or more, are all; the sampler's word has 32 bits.
    for (const top_k of [2048, 2 ** 32 + 1, 1e300]) expect(resolve({ top_k }).topK).toBe(0);
    expect(resolve({ top_k: 2047 }).topK).toBe(2047);
    expect(resolve({ stop: 'x' }).stop).toEqual(['x']);
    expect(resolve({ stop_token_ids: [4, 7, 4] }).stopTokenIds).toEqual([4, 7]);
    expect(resolve({ logit_bias: { '5': 1000, ' 6 ': -1000, '+7': 1 } }).logitBias).toEqual([
      [5, 100],
      [6, -100],
      [7, 1],
    ]);
  });

  test('a bad word is banned at the start of a text and after a space', () => {
    const { badWordsTokenIds } = resolve({ bad_words: ['Paris', 'Paris', ' Paris'] });
    const bare = [...tokenizer.encode('Paris', { addSpecialTokens: false })];
    const spaced = [...tokenizer.encode(' Paris', { addSpecialTokens: false })];
    expect(badWordsTokenIds).toContainEqual(bare);
    if (spaced.length === bare.length) expect(badWordsTokenIds).toContainEqual(spaced);
    else expect(badWordsTokenIds).not.toContainEqual(spaced);
  });
});

/** Field, value, message, param: vLLM's. */
const REFUSED: [SamplingFields, string, string | null][] = [
  [{ n: 0 }, 'n must be at least 1, got 0.', null],
  [{ n: 20000 }, 'n must be at most 16384, got 20000.', null],
  [{ presence_penalty: 3 }, 'presence_penalty must be in [-2, 2], got 3.0.', null],
  [{ frequency_penalty: -2.5 }, 'frequency_penalty must be in [-2, 2], got -2.5.', null],
  [{ repetition_penalty: 0 }, 'repetition_penalty must be greater than zero, got 0.0.', null],
  [{ repetition_penalty: Infinity }, 'repetition_penalty must be a finite number, got inf.', null],
  [
    { temperature: -1 },
    'temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)',
    'temperature',
  ],
  [{ temperature: 2.5 }, 'temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)', 'temperature'],
  [
    { temperature: Infinity },
    'temperature must be a finite number, got inf. (parameter=temperature, value=inf)',
    'temperature',
  ],
  [{ top_p: 0 }, 'top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)', 'top_p'],
  [{ top_k: -5 }, 'top_k must be 0 (disable), or at least 1, got -5.', null],
  [{ min_p: 1.5 }, 'min_p must be in [0, 1], got 1.5.', null],
  [{ min_tokens: -1 }, 'min_tokens must be greater than or equal to 0, got -1.', null],
  [{ min_tokens: 17 }, 'min_tokens must be less than or equal to max_tokens=16, got 17.', null],
  [{ stop: ['a', ''] }, 'stop cannot contain an empty string.', null],
  [
    { bad_words: ['x'.repeat(1025)] },
    'bad_words entries must have at most 1024 characters, got 1025. (parameter=bad_words)',
    'bad_words',
  ],
  [{ bad_words: [''] }, "bad_words cannot contain an empty string. Got bad_words=['']", null],
  [{ n: 2, temperature: 0 }, 'n must be 1 when using greedy sampling, got 2.', null],
  [
    { logit_bias: { x: 1, '5': 1 } },
    "logit_bias contains key(s) that cannot be converted to integer token IDs: ['x'] (parameter=logit_bias, value=['x'])",
    'logit_bias',
  ],
  [
    { logit_bias: { '5000': 1 } },
    'token_id(s) [5000] in logit_bias contain out-of-vocab token ids. Vocabulary size: 2048 (parameter=logit_bias, value=[5000])',
    'logit_bias',
  ],
  [
    { stop_token_ids: [-1] },
    'token_id(s) [-1] in stop_token_ids contain out-of-vocab token ids. Vocabulary size: 2048 (parameter=stop_token_ids, value=[-1])',
    'stop_token_ids',
  ],
  [
    { allowed_token_ids: [] },
    'allowed_token_ids is not None and empty! (parameter=allowed_token_ids, value=[])',
    'allowed_token_ids',
  ],
  [
    { allowed_token_ids: [2048] },
    'allowed_token_ids contains out-of-vocab token id! (parameter=allowed_token_ids, value=[2048])',
    'allowed_token_ids',
  ],
];

describe('refused', () => {
  test.each(REFUSED)('%j', (fields, message, param) => {
    expect(refusal(fields)).toMatchObject({ message, param });
  });

  test('the first fault in the order of the fields is told', () => {
    expect(refusal({ temperature: -1, top_p: 5, n: 0 }).message).toStartWith('n must');
    expect(refusal({ temperature: -1, top_p: 5 }).param).toBe('temperature');
  });

  test('log probabilities beyond --max-logprobs', () => {
    expect(refusal({}, { logprobs: 21 })).toMatchObject({
      message: 'Requested sample logprobs of 21, which is greater than max allowed: 20 (parameter=logprobs, value=21)',
      param: 'logprobs',
    });
    expect(refusal({}, { promptLogprobs: -1 }).message).toContain('Requested prompt logprobs of 2048');
    expect(resolve({}, { logprobs: -1, maxLogprobs: -1 }).logprobs).toBe(-1);
    expect(refusal({}, { maxTokens: 0 }).param).toBe('max_tokens');
  });

  test('bad words without end', () => {
    const words = Array.from({ length: 200 }, (_, i) => `word${i}`);
    expect(refusal({ bad_words: words }).message).toContain('The max number is 128');
  });
});

test.each(Object.entries(SAMPLING_RANGES))(
  '%s: what an operator may set as a default, a request may say',
  (name, range) => {
    const isTaken = (value: number) => {
      // max_tokens comes resolved.
      const { max_tokens: maxTokens = 16, ...fields }: DefaultSamplingParams = { [name]: value };
      try {
        resolve(fields, { maxTokens });
        return true;
      } catch {
        return false;
      }
    };
    const values = [-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 1e9, Number.NaN, Number.NEGATIVE_INFINITY];
    expect(values.filter(isTaken)).toEqual(values.filter(range.accepts));
  },
);

describe('repetition detection', () => {
  const detection = (max_pattern_size?: number, min_pattern_size?: number, min_count?: number) =>
    resolve({ repetition_detection: { max_pattern_size, min_pattern_size, min_count } }).repetitionDetection;

  test('sizes from 1, off without a largest one', () => {
    expect(detection(5, 0, 3)).toEqual({ maxPatternSize: 5, minPatternSize: 1, minCount: 3 });
    expect(detection(5, 2, 2)).toEqual({ maxPatternSize: 5, minPatternSize: 2, minCount: 2 });
    expect(detection()).toBeNull();
    expect(resolve({}).repetitionDetection).toBeNull();
  });

  test('what can not be meant is refused', () => {
    expect(() => detection(2, 3, 2)).toThrow('with min_pattern_size <= max_pattern_size');
    expect(() => detection(-1, -2, 2)).toThrow('must be >=0');
    expect(() => detection(3, 1, 1)).toThrow('min_count must be >= 2');
    expect(() => detection(2049, 1, 2)).toThrow('at most 2048, got 2049');
  });
});

test('values print as Python prints them', () => {
  expect([2, 0.1, 1e16, 1e-5, 1.5e-7, 123456789012345680, -0, 1e300].map(pythonFloat)).toEqual([
    '2.0',
    '0.1',
    '1e+16',
    '1e-05',
    '1.5e-07',
    '1.2345678901234568e+17',
    '-0.0',
    '1e+300',
  ]);
  expect(pythonQuote(`a'b`)).toBe(`"a'b"`);
  expect(pythonQuote(`'"\n\u0001`)).toBe(`'\\'"\\n\\x01'`);
  expect(pythonList([1e21, 'x'])).toBe("[1000000000000000000000, 'x']");
});
