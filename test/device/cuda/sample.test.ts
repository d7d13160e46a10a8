import { afterAll, expect, test } from 'bun:test';
import type { Device } from '../../../src/device/device.ts';
import { SamplingBatch } from '../../../src/sampling/sampling-batch.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../../src/sampling/sampling-params.ts';
import { prepareSampling } from '../../../src/sampling/sampling-request.ts';
import { normals } from '../../sampling/reference-sampler.ts';
import { randomSource } from '../harness.ts';
import { openDeviceUnderTest, openReference } from './device-under-test.ts';

const VOCAB = 1500;
const LD_TABLE = 16;
const PROMPT = [1, 2, 3, 3];
const OUTPUT = [5, 6, 5, 7, 8, 5];

/** A grammar that allows every third token, and a few of the last word's. */
const BITMASK = Int32Array.from({ length: Math.ceil(VOCAB / 32) }, (_, word) =>
  word === Math.floor(VOCAB / 32) ? 0b1011 : [0x49249249, 0x92492492, 0x24924924][word % 3]! | 0,
);
const NOTHING_ALLOWED = BITMASK.map(() => 0);

interface Row extends Partial<SamplingParams> {
  bitmask?: Int32Array;
}

const PARAMS: Row[] = [
  { temperature: 0 },
  {},
  { temperature: 0.4 },
  { topK: 5 },
  { topK: 1 },
  { topP: 0.7 },
  { topP: 0.99, temperature: 2 },
  { minP: 0.1 },
  { topK: 20, topP: 0.8, minP: 0.01, temperature: 1.3 },
  { repetitionPenalty: 1.8, presencePenalty: 1.5, frequencyPenalty: 0.7, temperature: 0 },
  { repetitionPenalty: 0.8, presencePenalty: -1, topP: 0.9 },
  { allowedTokenIds: [3, 5, 8, 13, 21, VOCAB + 7] },
  { badWordsTokenIds: [[10], [8, 5, 12], [7, 8, 5, 15]], temperature: 0 },
  {
    logitBias: [
      [4, 30],
      [VOCAB, 50],
    ],
  },
  { minTokens: 100, temperature: 0 },
  { bitmask: BITMASK },
  { bitmask: BITMASK, temperature: 0 },
  { bitmask: BITMASK, topK: 7, topP: 0.9, repetitionPenalty: 1.4, logitBias: [[3, 9]], minTokens: 100 },
  { bitmask: NOTHING_ALLOWED },
  // Nothing is left: the only allowed token is a bad word.
  { allowedTokenIds: [10], badWordsTokenIds: [[10]] },
];

interface Sampled {
  tokens: number[];
  logits: Float32Array;
}

/** One row for each of the parameters, sampled as the model runner does; the processed logits are given back. */
function sample(device: Device, seed: bigint, all: readonly Row[] = PARAMS): Sampled {
  const rows = all.length;
  const batch = new SamplingBatch(device, { maxRows: rows, vocabSize: VOCAB, logprobsMode: 'processed_logits' });
  const logits = device.staging(rows * VOCAB * 4, 'test');
  const table = device.staging(rows * LD_TABLE * 4, 'test');
  const host = new Float32Array(logits.host);
  host.set(normals(rows * VOCAB, 7, 2));
  // Ties at the cutoffs of the rows with top_k and top_p.
  for (const row of [3, 5])
    for (let id = 0; id < VOCAB; id++) host[row * VOCAB + id] = Math.round(host[row * VOCAB + id]!);
  const history = new Int32Array(table.host);
  batch.begin(rows);
  all.forEach(({ bitmask = null, ...params }, row) => {
    history.set([...PROMPT, ...OUTPUT], row * LD_TABLE);
    const request = prepareSampling(
      { ...DEFAULT_SAMPLING_PARAMS, ...params, logprobs: 1 },
      { eosTokenIds: [0, 1], seed: seed + BigInt(row), vocabSize: VOCAB },
    );
    const numTokens = PROMPT.length + OUTPUT.length;
    batch.setRow(row, request, { slot: row, numPromptTokens: PROMPT.length, numTokens, bitmask });
  });
  logits.upload();
  table.upload();
  batch.upload();
  batch.sample(logits.ptr, table.ptr, LD_TABLE);
  const result = batch.finish(logits.ptr);
  logits.download();
  table.download();
  device.wait(device.record());
  const tokens = all.map((_, row) => result.sampled(row));
  const written = all.map((_, row) => history[row * LD_TABLE + PROMPT.length + OUTPUT.length]!);
  expect(written).toEqual(tokens);
  return { tokens, logits: host.slice() };
}

const cpu = openReference(1);
const cuda = await openDeviceUnderTest({ checked: true });
afterAll(() => {
  cpu.close();
  cuda.close();
});

test.each([1n, 1000n, 0x123456789abcdefn])(
  'seed %p: the same tokens from the same candidates as on the CPU',
  (seed) => {
    const [expected, actual] = [sample(cpu, seed), sample(cuda, seed)];
    expect(actual.tokens).toEqual(expected.tokens);
    actual.logits.forEach((value, i) => {
      const other = expected.logits[i]!;
      if (value !== other) expect(Math.abs(value - other)).toBeLessThan(1e-5 * Math.max(1, Math.abs(other)));
    });
  },
);

test('more rows than are worked on at once, each with parameters of its own, give the same tokens as on the CPU', async () => {
  const plain = await openDeviceUnderTest({ checked: false });
  const random = randomSource(5);
  const between = (low: number, high: number) => low + ((high - low) * (random() + 1)) / 2;
  const some = (params: Row): Row => (random() > 0 ? params : {});
  const rows = Array.from(
    { length: 70 },
    (): Row => ({
      ...some({ temperature: between(0, 2) }),
      ...some({ topK: Math.floor(between(1, 40)) }),
      ...some({ topP: between(0.3, 1) }),
      ...some({ minP: between(0, 0.2) }),
      ...some({
        repetitionPenalty: between(0.5, 2),
        presencePenalty: between(-2, 2),
        frequencyPenalty: between(-2, 2),
      }),
      ...some({ logitBias: [[Math.floor(between(0, VOCAB)), between(-5, 5)]] }),
      ...some({ bitmask: BITMASK }),
    }),
  );
  const [expected, actual] = [sample(cpu, 77n, rows), sample(plain, 77n, rows)];
  expect(actual.tokens).toEqual(expected.tokens);
  expect(new Set(expected.tokens).size).toBeGreaterThan(25);
  plain.close();
});
