import { afterAll, describe, expect, test } from 'bun:test';
import type { LogprobsTensors } from '../../src/sampling/logprobs-tensors.ts';
import { PromptLogprobs } from '../../src/sampling/prompt-logprobs.ts';
import type { LogprobsMode } from '../../src/sampling/sampling-batch.ts';
import { topLogprobs } from '../../src/sampling/sampling-request.ts';
import { normals, referenceProcessed } from './reference-sampler.ts';
import { openCpuDevice, SamplingHarness } from './sampling-harness.ts';

const device = await openCpuDevice();
afterAll(() => device.close());

function logSoftmax(logits: readonly number[]): number[] {
  const best = Math.max(...logits);
  const logSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - best), 0));
  return logits.map((logit) => logit - best - logSum);
}

/** Compares one position with values computed in doubles from the logits. */
function expectPosition(
  tensors: LogprobsTensors,
  position: number,
  expected: { logits: readonly number[]; values: readonly number[]; target: number; topN: number },
): void {
  const { logits, values, target, topN } = expected;
  expect(tensors.width).toBe(topN + 1);
  const start = position * tensors.width;
  const ids = [...tensors.tokenIds.subarray(start, start + tensors.width)];
  const order = logits.map((_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
  expect(ids).toEqual([target, ...order.slice(0, topN)]);
  expect(tensors.ranks[position]).toBe(1 + logits.filter((logit) => logit > logits[target]!).length);
  for (const [i, id] of ids.entries()) {
    const value = tensors.logprobs[start + i]!;
    if (values[id] === -Infinity) expect(value).toBe(-Infinity);
    else expect(Math.abs(value - values[id]!)).toBeLessThan(2e-6 * Math.max(1, Math.abs(values[id]!)));
  }
}

describe('of the sampled token', () => {
  const vocabSize = 1500;
  const logits = normals(vocabSize, 21, 3);
  const params = { temperature: 0.7, topK: 50, repetitionPenalty: 1.4, logitBias: [[3, 2.5]] as [number, number][] };
  const input = { logits, params, prompt: [5, 6], output: [7] };
  const raw = Array.from(logits);
  const processed = Array.from(Float32Array.from(referenceProcessed(input)));
  const modes: Record<LogprobsMode, { logits: number[]; values: number[] }> = {
    raw_logprobs: { logits: raw, values: logSoftmax(raw) },
    raw_logits: { logits: raw, values: raw },
    processed_logprobs: { logits: processed, values: logSoftmax(processed) },
    processed_logits: { logits: processed, values: processed },
  };
  for (const [mode, expected] of Object.entries(modes)) {
    test.each([0, 1, 20])(`${mode}, top %d`, (topN) => {
      const harness = new SamplingHarness(device, vocabSize, mode as LogprobsMode, 4);
      const { tokens, logprobs } = harness.sample([{ ...input, params: { ...params, logprobs: topN } }]);
      expectPosition(logprobs[0]!, 0, { ...expected, target: tokens[0]!, topN });
    });
  }

  test('the whole vocabulary', () => {
    const harness = new SamplingHarness(device, vocabSize, 'raw_logprobs', 4);
    const { tokens, logprobs } = harness.sample([{ logits, params: { logprobs: -1 } }]);
    expectPosition(logprobs[0]!, 0, { ...modes.raw_logprobs, target: tokens[0]!, topN: vocabSize });
  });

  test('rows that want different numbers, or none, each get their own', () => {
    const harness = new SamplingHarness(device, vocabSize, 'raw_logprobs', 8);
    const wanted = [2, null, 0, 5, 1, null, null, 3];
    const rows = wanted.map((logprobs, i) => ({ logits: normals(vocabSize, 50 + i, 2), params: { logprobs } }));
    const result = harness.sample(rows);
    for (const [i, topN] of wanted.entries()) {
      const tensors = result.logprobs[i]!;
      if (topN === null) {
        expect(tensors).toBeNull();
        continue;
      }
      const values = Array.from(rows[i]!.logits);
      expectPosition(tensors, 0, { logits: values, values: logSoftmax(values), target: result.tokens[i]!, topN });
    }
  });

  test.each<LogprobsMode>(['raw_logprobs', 'processed_logits'])(
    'rows that name their tokens, between rows that want the best ones (%s)',
    (mode) => {
      const harness = new SamplingHarness(device, vocabSize, mode, 8);
      const named = [null, [1499, 3], [7], null, [0, 1, 2, 3, 4], null];
      const rows = named.map((logprobTokenIds, i) => ({
        logits: normals(vocabSize, 80 + i, 2),
        params: { temperature: 0.5, logprobs: i === 5 ? null : 2, logprobTokenIds },
      }));
      const result = harness.sample(rows);
      expect(result.logprobs[5]).toBeNull();
      for (const [i, ids] of named.slice(0, 5).entries()) {
        const { width, tokenIds, logprobs, ranks } = result.logprobs[i]!;
        const raw = Array.from(rows[i]!.logits);
        const target = result.tokens[i]!;
        const best = raw.map((_, id) => id).sort((a, b) => raw[b]! - raw[a]!);
        expect([...tokenIds]).toEqual([target, ...(ids ?? best.slice(0, 2))]);
        expect(width).toBe(tokenIds.length);
        expect([...ranks]).toEqual([1 + best.indexOf(target)]);
        const values = mode === 'raw_logprobs' ? logSoftmax(raw) : raw.map((logit) => logit / 0.5);
        for (const [k, id] of tokenIds.entries()) expect(logprobs[k]!).toBeCloseTo(values[id]!, 4);
      }
    },
  );

  test('ties go to the lower id and share the rank', () => {
    const harness = new SamplingHarness(device, 600, 'raw_logprobs', 2);
    const flat = new Float32Array(600).map((_, id) => (id === 599 ? 1 : 0));
    const { logprobs } = harness.sample([{ logits: flat, params: { logprobs: 4, allowedTokenIds: [300] } }]);
    expect([...logprobs[0]!.tokenIds]).toEqual([300, 599, 0, 1, 2]);
    expect([...logprobs[0]!.ranks]).toEqual([2]);
  });

  test('masked, NaN and extreme logits give no NaN', () => {
    const harness = new SamplingHarness(device, 300, 'raw_logprobs', 4);
    const rare = new Float32Array(300).fill(-Infinity);
    rare[7] = -3e38;
    rare[9] = 3e38;
    rare[11] = Number.NaN;
    const none = new Float32Array(300).fill(Number.NaN);
    const infinite = new Float32Array(300);
    infinite[4] = Infinity;
    const params = { logprobs: 3 };
    const { logprobs } = harness.sample([rare, none, infinite].map((row) => ({ logits: row, params })));
    expect([...logprobs[0]!.logprobs]).toEqual([0, 0, -Infinity, -Infinity]);
    expect([...logprobs[0]!.tokenIds]).toEqual([9, 9, 7, 0]);
    expect([...logprobs[1]!.logprobs]).toEqual(new Array(4).fill(-Infinity));
    expect([...logprobs[2]!.logprobs]).toEqual([0, 0, -Infinity, -Infinity]);
  });
});

describe('of prompts', () => {
  const vocabSize = 700;
  const positions = 5;
  const logits = normals(positions * vocabSize, 77, 2);
  const targets = Int32Array.of(3, 699, 0, 256, 42);

  test.each([[[5]], [[2, 3]], [[1, 1, 1, 1, 1]]])('in chunks of %p rows', (chunks) => {
    const piece = new PromptLogprobs(device, {
      vocabSize,
      numPositions: positions,
      topN: 2,
      logprobsMode: 'raw_logprobs',
    });
    const staging = device.staging(positions * vocabSize * 4, 'test');
    let done = 0;
    for (const rows of chunks) {
      // The same place for each chunk, as a model's logits workspace.
      new Float32Array(staging.host).set(logits.subarray(done * vocabSize, (done + rows) * vocabSize));
      staging.upload();
      piece.add(staging.ptr, targets.subarray(done, done + rows));
      device.wait(device.record());
      done += rows;
    }
    expect(piece.remaining).toBe(0);
    device.wait(piece.seal());
    const tensors = piece.take();
    staging.free();
    expect(tensors.numPositions).toBe(positions);
    for (let i = 0; i < positions; i++) {
      const row = Array.from(logits.subarray(i * vocabSize, (i + 1) * vocabSize));
      expectPosition(tensors, i, { logits: row, values: logSoftmax(row), target: targets[i]!, topN: 2 });
    }
  });

  test('more positions than announced are refused', () => {
    const piece = new PromptLogprobs(device, { vocabSize, numPositions: 1, topN: 0, logprobsMode: 'raw_logprobs' });
    expect(() => piece.add(1, targets)).toThrow('5 prompt positions where 1 were left');
    piece.free();
  });
});

test('the number of best tokens that a parameter asks for', () => {
  expect([null, 0, 5, 2000, -1].map((logprobs) => topLogprobs(logprobs, 1000))).toEqual([-1, 0, 5, 1000, 1000]);
});
