import { afterAll, expect, test } from 'bun:test';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import { CONSTANT_LISTS, forceToken, prepareSampling, rowWord } from '../../src/sampling/sampling-request.ts';
import { normals } from './reference-sampler.ts';
import { openCpuDevice, SamplingHarness } from './sampling-harness.ts';

const device = await openCpuDevice();
afterAll(() => device.close());

const VOCAB = 128;
const logitsFor = (id: number) => new Float32Array(VOCAB).map((_, i) => (i === id ? 9 : 0));
const greedy = { temperature: 0 };
const ANY = { eosTokenIds: [], seed: 0n, vocabSize: VOCAB };

test('a step is read while the next one is in flight, and not after its buffers are taken again', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 4);
  const first = harness.enqueue([{ logits: logitsFor(3), params: { ...greedy, logprobs: 1 } }]);
  device.wait(first.event);
  const second = harness.enqueue([{ logits: logitsFor(70), params: greedy }]);
  expect(first.sampled(0)).toBe(3);
  expect([...first.logprobs(0)!.tokenIds]).toEqual([3, 3]);
  device.wait(second.event);
  const third = harness.enqueue([{ logits: logitsFor(71), params: greedy }]);
  expect(() => first.sampled(0)).toThrow('after its buffers were reused');
  expect(() => first.logprobs(0)).toThrow('after its buffers were reused');
  expect(second.sampled(0)).toBe(70);
  device.wait(third.event);
  expect(third.sampled(0)).toBe(71);
  expect(third.logprobs(0)).toBeNull();
});

test('rows out of range are refused', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 2);
  const row = { logits: logitsFor(1), params: greedy };
  expect(() => harness.enqueue([row, row, row])).toThrow('3 rows to sample, the batch was made for at most 2');
  const result = harness.enqueue([row]);
  device.wait(result.event);
  expect(() => result.sampled(1)).toThrow('row 1 of a sampling step with 1 rows');
});

test('a step without rows', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 2);
  const result = harness.enqueue([]);
  device.wait(result.event);
  expect(result.rows).toBe(0);
});

test('lists of any length: the pool grows in the middle of a step and keeps what is in it', () => {
  const vocabSize = 120_000;
  const harness = new SamplingHarness(device, vocabSize, 'raw_logprobs', 4);
  const logits = normals(vocabSize, 1);
  const many = Array.from({ length: 100_000 }, (_, i) => i + 7);
  const bestOf = (ids: number[]) => ids.reduce((best, id) => (logits[id]! > logits[best]! ? id : best));
  const rows = [[5, 6], many, [100_500, 4], many.slice(2000)].map((allowedTokenIds) => ({
    logits,
    params: { ...greedy, allowedTokenIds },
  }));
  expect(harness.sample(rows).tokens).toEqual(rows.map((row) => bestOf(row.params.allowedTokenIds)));
});

test('a grammar mask must cover the vocabulary', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 2);
  expect(() => harness.enqueue([{ logits: logitsFor(1), bitmask: new Int32Array(3) }])).toThrow(
    'a grammar mask of 3 words, the vocabulary needs 4',
  );
});

test('each row has its own grammar mask', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 4);
  const only = (id: number) => {
    const mask = new Int32Array(4);
    mask[id >> 5] = 1 << (id & 31);
    return mask;
  };
  const rows = [only(64), null, only(31), only(127)].map((bitmask) => ({
    logits: logitsFor(9),
    params: greedy,
    bitmask,
  }));
  expect(harness.sample(rows).tokens).toEqual([64, 9, 31, 127]);
});

test('every instruction set draws the same tokens', async () => {
  const rows = Array.from({ length: 32 }, (_, i) => ({
    logits: normals(3001, i, 2),
    params: i % 2 === 0 ? { topP: 0.9, topK: 200 } : { logprobs: 2 },
  }));
  const sampleWith = async (isa: 'portable' | undefined) => {
    const other = await openCpuDevice(1, isa);
    const { tokens } = new SamplingHarness(other, 3001, 'raw_logprobs', 32).sample(rows);
    other.close();
    return tokens;
  };
  expect(await sampleWith('portable')).toEqual(await sampleWith(undefined));
});

test('a forced token comes whatever the request forbids, and keeps the log probabilities that it asked for', () => {
  const harness = new SamplingHarness(device, VOCAB, 'raw_logprobs', 4);
  const params = {
    ...greedy,
    allowedTokenIds: [2, 3],
    logitBias: [[3, 100] as [number, number]],
    badWordsTokenIds: [[1]],
    minTokens: 5,
    stopTokenIds: [1],
    logprobs: 0,
  };
  // The list behind the forced token's own would be read as the bad word 1, were its length still that of the request's lists.
  const neighbour = { logits: logitsFor(9), params: { ...greedy, allowedTokenIds: [1] } };
  const forced = { logits: logitsFor(9), params, forcedToken: 1 };
  const { tokens, logprobs } = harness.sample([
    forced,
    neighbour,
    { ...forced, params: { ...greedy, badWordsTokenIds: [[1]] } },
    neighbour,
  ]);
  expect(tokens).toEqual([1, 1, 1, 1]);
  expect([...logprobs[0]!.tokenIds]).toEqual([1]);
  const { template, lists } = forceToken(prepareSampling({ ...DEFAULT_SAMPLING_PARAMS, ...params }, ANY), 1);
  expect(CONSTANT_LISTS.map((name) => template[rowWord(name) + 1])).toEqual([1, 0, 0]);
  expect([...lists]).toEqual([1]);
});
