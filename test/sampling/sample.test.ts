import { afterAll, describe, expect, test } from 'bun:test';
import type { SamplingParams } from '../../src/sampling/sampling-params.ts';
import {
  chiSquared,
  normals,
  philox4x32,
  type ReferenceInput,
  referenceProcessed,
  softmax,
} from './reference-sampler.ts';
import { openCpuDevice, SamplingHarness, type TestRow } from './sampling-harness.ts';

const device = await openCpuDevice();
afterAll(() => device.close());
const VOCAB = 64;
const small = new SamplingHarness(device, VOCAB);
const large = new SamplingHarness(device, 5003, 'raw_logprobs', 64);

describe('distribution', () => {
  const prompt = [1, 2, 3, 3];
  const output = [5, 6, 5, 7, 8, 5];
  const cases: Record<string, Partial<SamplingParams>> = {
    plain: {},
    'low temperature': { temperature: 0.4 },
    'high temperature': { temperature: 3 },
    'top_k 5': { topK: 5 },
    'top_k 1': { topK: 1 },
    'top_k beyond the vocabulary': { topK: 1000 },
    'top_p 0.7': { topP: 0.7 },
    'top_p 0.99': { topP: 0.99 },
    'min_p 0.1': { minP: 0.1 },
    'min_p and temperature': { minP: 0.2, temperature: 1.7 },
    'top_k, top_p and temperature': { topK: 20, topP: 0.8, temperature: 1.3 },
    'min_p, top_k, top_p': { minP: 0.02, topK: 12, topP: 0.9 },
    'repetition penalty': { repetitionPenalty: 1.8 },
    'presence penalty': { presencePenalty: 1.5 },
    'frequency penalty': { frequencyPenalty: 0.7 },
    'negative penalties': { presencePenalty: -1, frequencyPenalty: -0.4, repetitionPenalty: 0.8 },
    'all penalties with top_p': { repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.5, topP: 0.9 },
    'logit bias': {
      logitBias: [
        [4, 3.5],
        [9, -100],
        [11, 1.25],
        [VOCAB, 50],
        [-1, 50],
      ],
    },
    'allowed ids': { allowedTokenIds: [3, 5, 8, 13, 21, VOCAB + 7] },
    'bad words': {
      badWordsTokenIds: [[10], [8, 5, 12], [8, 6, 14], [7, 8, 5, 15], [1, 2, 3, 3, 5, 6, 5, 7, 8, 5, 16], []],
    },
    'bias, allowed ids, bad words and penalties': {
      logitBias: [
        [5, 4],
        [8, 2],
      ],
      allowedTokenIds: [3, 5, 8, 13, 21, 22],
      badWordsTokenIds: [[8, 5, 21]],
      frequencyPenalty: 0.3,
      temperature: 0.8,
    },
  };
  const logits = normals(VOCAB, 7, 1.5);
  for (const [name, params] of Object.entries(cases)) {
    test(name, () => {
      const input = { logits, params, prompt, output };
      const probabilities = softmax(referenceProcessed(input));
      const counts = small.histogram(input, 4096);
      expect(probabilities.flatMap((p, id) => (p === 0 && counts[id]! > 0 ? [id] : []))).toEqual([]);
      const { statistic, critical } = chiSquared(counts, probabilities);
      expect(statistic).toBeLessThan(critical);
    });
  }

  test('draws at successive positions of one seed', () => {
    const counts = new Array<number>(VOCAB).fill(0);
    for (let step = 0; step < 8; step++) {
      const rows = Array.from({ length: 512 }, (_, i) => ({ logits, seed: 99n, numTokens: step * 512 + i }));
      for (const token of small.sample(rows).tokens) counts[token]!++;
    }
    const { statistic, critical } = chiSquared(counts, softmax(referenceProcessed({ logits })));
    expect(statistic).toBeLessThan(critical);
  });

  test('over several blocks of a larger vocabulary', () => {
    const row = { logits: normals(large.vocabSize, 3, 1), params: { topP: 0.9, temperature: 0.5 } };
    const counts = new Array<number>(large.vocabSize).fill(0);
    for (let step = 0; step < 64; step++) {
      const rows = Array.from({ length: 64 }, (_, i) => ({ ...row, seed: 5n, numTokens: step * 64 + i }));
      for (const token of large.sample(rows).tokens) counts[token]!++;
    }
    const { statistic, critical } = chiSquared(counts, softmax(referenceProcessed(row)));
    expect(statistic).toBeLessThan(critical);
  });
});

describe('the generator', () => {
  // Known answers of the authors' Random123 library.
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('is Philox4x32-10: %p', (counter, key, expected) => {
    expect(philox4x32(counter, key)).toEqual(expected);
  });

  test('is keyed by the seed and counts tokens', () => {
    const logits = new Float32Array(large.vocabSize);
    const seeds = [0n, 1n, 0xffffffffn, 0x1_0000_0000n, 0x299f31d0_a4093822n, (1n << 64n) - 1n, -1n];
    const rows = Array.from({ length: 64 }, (_, i) => ({ logits, seed: seeds[i % seeds.length]!, numTokens: i * 977 }));
    const expected = rows.map(({ seed, numTokens }) => {
      const bits = BigInt.asUintN(64, seed);
      const [high, low] = philox4x32([numTokens, 0, 0, 0], [Number(bits & 0xffffffffn), Number(bits >> 32n)]);
      return Math.floor(((high! * 2 ** 32 + low!) / 2 ** 64) * large.vocabSize);
    });
    expect(large.sample(rows).tokens).toEqual(expected);
  });
});

describe('what the processed logits are', () => {
  const processed = new SamplingHarness(device, 1021, 'processed_logits', 64);
  /** Both sets of survivors, and the values. */
  function check(input: ReferenceInput & TestRow): void {
    const expected = referenceProcessed(input);
    const [after] = processed.sample([{ ...input, params: { ...input.params, logprobs: 0 } }]).logitsAfter;
    for (const [id, value] of after!.entries()) {
      if (expected[id] === -Infinity || value === -Infinity) expect([id, value]).toEqual([id, expected[id]!]);
      else expect(Math.abs(value - expected[id]!)).toBeLessThan(1e-4 * Math.max(1, Math.abs(expected[id]!)));
    }
  }

  test.each(Array.from({ length: 24 }, (_, i) => i))('random parameters %d', (seed) => {
    const pick = normals(12, seed + 100);
    const logits = normals(1021, seed, 0.5 + Math.abs(pick[0]!) * 3);
    const ids = Array.from({ length: 20 }, (_, i) => Math.floor((seed * 7919 + i * 104729) % 1021));
    check({
      logits,
      prompt: ids.slice(0, 9),
      output: ids.slice(6),
      params: {
        temperature: 0.3 + Math.abs(pick[1]!),
        topK: seed % 3 === 0 ? 1 + (seed % 7) * 60 : 0,
        topP: seed % 2 === 0 ? 0.05 + (0.9 * ((seed * 37) % 97)) / 97 : 1,
        minP: seed % 5 === 0 ? 0.03 : 0,
        repetitionPenalty: 1 + Math.abs(pick[2]!) / 2,
        presencePenalty: pick[3]!,
        frequencyPenalty: pick[4]!,
        logitBias: ids.slice(0, 4).map((id, i) => [id, pick[5 + i]! * 4]),
        badWordsTokenIds: [[ids[3]!], [ids[19]!, ids[1]!]],
      },
    });
  });

  test('top_k keeps the ties of the k-th best', () => {
    const logits = new Float32Array(1021).map((_, i) => (i % 100 === 0 ? 5 : i % 10 === 0 ? 4 : 0));
    check({ logits, params: { topK: 20 } });
  });

  test('top_p takes the lowest ids of equals', () => {
    check({ logits: new Float32Array(1021), params: { topP: 0.5005 } });
    check({ logits: new Float32Array(1021).map((_, i) => (i > 1000 ? 3 : 0)), params: { topP: 0.9005 } });
  });
});

describe('greedy', () => {
  test('takes the lowest id of equals, wherever they are', () => {
    const { vocabSize } = large;
    for (const ids of [[0, 1], [255, 256], [17, 5002], [4999, 5002], [5002], [300, 301, 302]]) {
      const logits = new Float32Array(vocabSize).fill(-3);
      for (const id of ids) logits[id] = 7.25;
      expect(large.sample([{ logits, params: { temperature: 0 } }]).tokens).toEqual([ids[0]!]);
    }
  });

  test('sees bias, masks and penalties but not top_k, top_p or the seed', () => {
    const logits = Float32Array.from({ length: VOCAB }, (_, i) => i / 10);
    const greedy = (params: Partial<SamplingParams>, row: Partial<TestRow> = {}) =>
      small.sample([{ logits, prompt: [63], output: [62], ...row, params: { temperature: 0, ...params } }]).tokens[0]!;
    expect(greedy({})).toBe(63);
    expect(greedy({ seed: 4, topK: 3, topP: 0.1 })).toBe(63);
    expect(greedy({ repetitionPenalty: 2 })).toBe(61);
    expect(greedy({ presencePenalty: 1, logitBias: [[63, -9]] })).toBe(61);
    expect(greedy({ badWordsTokenIds: [[62, 63]] })).toBe(62);
    expect(greedy({ allowedTokenIds: [4, 9] })).toBe(9);
    const bitmask = new Int32Array(2);
    bitmask[0] = (1 << 31) | (1 << 3);
    expect(greedy({}, { bitmask })).toBe(31);
    bitmask[1] = 1 << 2;
    expect(greedy({}, { bitmask })).toBe(34);
  });
});

test('min_tokens masks EOS and stop ids until that many tokens are there', () => {
  const logits = Float32Array.from({ length: VOCAB }, (_, i) => i / 10);
  const base = { logits, eosTokenIds: [63, 62], prompt: [1] };
  const params = { temperature: 0, minTokens: 2, stopTokenIds: [61] };
  const rows: TestRow[] = [
    { ...base, params },
    { ...base, params, output: [4] },
    { ...base, params, output: [4, 5] },
    { ...base, params: { ...params, ignoreEos: true } },
    { ...base, params: { ...params, minTokens: 0 } },
  ];
  expect(small.sample(rows).tokens).toEqual([60, 60, 63, 60, 63]);
});

describe('reproducibility', () => {
  const params: Partial<SamplingParams> = { temperature: 1.2, topP: 0.95, topK: 400, frequencyPenalty: 0.1 };
  const rows: TestRow[] = Array.from({ length: 40 }, (_, i) => ({
    logits: normals(large.vocabSize, i + 1, 2),
    params: i % 3 === 0 ? params : { temperature: 0.9 },
    prompt: [i, i + 1],
    output: [3, 4],
    seed: BigInt(i * 31),
  }));
  const together = large.sample(rows).tokens;

  test('alone or in any position of a batch', () => {
    expect(rows.map((row) => large.sample([row]).tokens[0]!)).toEqual(together);
    expect(large.sample([...rows].reverse()).tokens.reverse()).toEqual(together);
  });

  test('with any number of threads', async () => {
    for (const threads of [1, 3]) {
      const other = await openCpuDevice(threads);
      expect(new SamplingHarness(other, large.vocabSize, 'raw_logprobs', 64).sample(rows).tokens).toEqual(together);
      other.close();
    }
  });
});

describe('extremes', () => {
  const logits = normals(VOCAB, 11, 2);
  const best = logits.indexOf(Math.max(...logits));
  const one = (row: TestRow) => small.sample([row]).tokens[0]!;

  test.each([1e-5, 1e-4, 1e-3])('temperature %d is as good as greedy', (temperature) => {
    expect(one({ logits, params: { temperature } })).toBe(best);
  });

  test('temperature 100 is nearly uniform', () => {
    const { statistic, critical } = chiSquared(
      small.histogram({ logits, params: { temperature: 100 } }, 4096),
      softmax(referenceProcessed({ logits, params: { temperature: 100 } })),
    );
    expect(statistic).toBeLessThan(critical);
  });

  test.each([1e-9, 0])('top_p %d leaves the best', (topP) => {
    expect(small.histogram({ logits, params: { topP } }, 200)[best]).toBe(200);
  });

  test('min_p 1 leaves the best', () => {
    expect(small.histogram({ logits, params: { minP: 1 } }, 200)[best]).toBe(200);
  });

  test('all masked but one', () => {
    const masked = new Float32Array(VOCAB).fill(-Infinity);
    masked[17] = -1e30;
    expect(one({ logits: masked })).toBe(17);
    expect(one({ logits, params: { allowedTokenIds: [42] } })).toBe(42);
    expect(one({ logits, params: { allowedTokenIds: [42], topP: 0.2, topK: 3, minP: 0.5 } })).toBe(42);
  });

  test.each([0, 1])('NaN and infinite logits give a valid id, temperature %d', (temperature) => {
    const params = { temperature };
    const nan = new Float32Array(VOCAB).fill(Number.NaN);
    expect(one({ logits: nan, params })).toBe(0);
    expect(one({ logits: new Float32Array(VOCAB).fill(-Infinity), params })).toBe(0);
    nan[9] = 1;
    expect(one({ logits: nan, params })).toBe(9);
    expect(one({ logits: nan, params: { ...params, topK: 2, topP: 0.5, minP: 0.1 } })).toBe(9);
    const infinite = Float32Array.from(logits);
    infinite[12] = Infinity;
    infinite[40] = Infinity;
    expect(one({ logits: infinite, params })).toBe(12);
  });

  test.each([0, 1])(
    'a row whose allowed tokens are all impossible stays within what is allowed, temperature %d',
    (temperature) => {
      const impossible = Float32Array.from(logits);
      impossible[20] = -Infinity;
      impossible[21] = -Infinity;
      expect(one({ logits: impossible, params: { temperature, allowedTokenIds: [21, 20] } })).toBe(20);
      // Every allowed token is a bad word: the harder constraint holds.
      expect(one({ logits, params: { temperature, allowedTokenIds: [30, 31], badWordsTokenIds: [[30], [31]] } })).toBe(
        logits[30]! > logits[31]! ? 30 : 31,
      );
      expect(one({ logits, params: { temperature, allowedTokenIds: [VOCAB + 1] } })).toBe(0);
      expect(one({ logits, params: { temperature }, bitmask: new Int32Array(2) })).toBe(0);
    },
  );

  test('ids outside the vocabulary in history and lists are ignored', () => {
    const params: Partial<SamplingParams> = {
      temperature: 0,
      repetitionPenalty: 1.1,
      frequencyPenalty: 1,
      logitBias: [[1_000_000, 5]],
      badWordsTokenIds: [[-7], [99999]],
    };
    expect(one({ logits, params, prompt: [-5, 2_000_000_000], output: [-2_000_000_000] })).toBe(best);
  });

  test('no history and an empty history', () => {
    const params = { temperature: 0, repetitionPenalty: 1.5, frequencyPenalty: 1, badWordsTokenIds: [[3, best]] };
    expect(one({ logits, params, numTokens: 0 })).toBe(best);
    expect(one({ logits, params, numTokens: 12345 })).toBe(best);
    expect(one({ logits, params })).toBe(best);
  });
});

test('raw logits stay as they are, and the token goes to the table', () => {
  const logits = normals(VOCAB, 5, 2);
  const { tokens, tableEntries, logitsAfter } = small.sample([
    {
      logits,
      prompt: [1, 2],
      output: [3],
      params: { logprobs: 3, repetitionPenalty: 2, logitBias: [[4, 9]], topK: 4 },
    },
  ]);
  expect(logitsAfter[0]).toEqual(logits);
  expect(tableEntries).toEqual(tokens);
});
