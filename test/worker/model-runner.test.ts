import { afterAll, expect, test } from 'bun:test';
import type { Device, Ops } from '../../src/device/device.ts';
import type { OpName } from '../../src/device/ops.ts';
import type { CausalLM, Model } from '../../src/models/model.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import type { NewRequestData, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { ModelRunner } from '../../src/worker/model-runner.ts';
import type { OutputStage } from '../../src/worker/output-stage.ts';
import { SamplingStage } from '../../src/worker/sampling-stage.ts';
import { openDevice } from '../device/harness.ts';

const [VOCAB, HIDDEN, REPLAY_SIZE, MAX_SEQS] = [16, 8, 4, 4];
const cpu = openDevice(1);
afterAll(() => cpu.close());

interface Call {
  op: OpName;
  args: number[];
  replayed: boolean;
}

/** The CPU's device, which takes notes, and fills decode steps up to REPLAY_SIZE. */
function observed(): { device: Device; calls: Call[] } {
  const calls: Call[] = [];
  let replaying = false;
  const ops = new Proxy(cpu.ops, {
    get:
      (target, op: OpName) =>
      (...args: number[]) => {
        calls.push({ op, args, replayed: replaying });
        target[op](...args);
      },
  }) as Ops;
  const own: Partial<Device> = {
    ops,
    replaySize: () => REPLAY_SIZE,
    replayable: (enqueue) => {
      replaying = true;
      try {
        return enqueue();
      } finally {
        replaying = false;
      }
    },
  };
  const device = new Proxy(cpu, {
    get: (target, name: keyof Device) => {
      const value = own[name] ?? target[name];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  }) as Device;
  return { device, calls };
}

const NO_CACHE = { numBlocks: 1, groups: [], tensors: [] };

const STEP: SchedulerOutput = {
  newRequests: [],
  cachedRequests: [],
  totalNumScheduledTokens: 0,
  releasedKeys: [],
  grammarBitmask: null,
  forcedTokens: [],
  waitsForLogits: false,
};

function request(key: number, tokenIds: number[], logprobs: number | null): NewRequestData {
  return {
    key,
    requestId: `r${key}`,
    tokenIds: Int32Array.from(tokenIds),
    numPromptTokens: tokenIds.length,
    samplingParams: { ...DEFAULT_SAMPLING_PARAMS, temperature: 0, logprobs },
    poolingParams: null,
    eosTokenIds: [],
    seed: 1n,
    lora: null,
    blockIds: [],
    numComputedTokens: 0,
    numScheduledTokens: tokenIds.length,
  };
}

test('a decode step is replayed with its logits and its sampling, filled up with rows that are nobody’s', () => {
  const { device, calls } = observed();
  const hidden = cpu.alloc(16 * HIDDEN * 4, 'test');
  const logits = cpu.staging(MAX_SEQS * VOCAB * 4, 'test');
  // Row i likes token 3 + i.
  for (let row = 0; row < MAX_SEQS; row++) new Float32Array(logits.host)[row * VOCAB + 3 + row] = 5;
  const model = { vocabSize: VOCAB, forward: () => hidden, computeLogits: () => logits.ptr } as unknown as CausalLM;
  const limits = { maxNumSeqs: MAX_SEQS, maxNumBatchedTokens: 16, maxLogitRows: MAX_SEQS, maxModelLen: 32 };
  const runner = new ModelRunner(
    device,
    model,
    NO_CACHE,
    { ...limits, vocabSize: VOCAB },
    {
      createStage(tokens) {
        const stage = { maxLogitRows: MAX_SEQS, hiddenSize: HIDDEN, logprobsMode: 'raw_logprobs' } as const;
        return new SamplingStage(device, model, tokens, stage);
      },
    },
  );
  const sampleCalls = () => calls.splice(0).filter(({ op }) => op === 'sample');

  const prefill = runner.execute({ ...STEP, newRequests: [request(1, [7, 8, 9], null), request(2, [5], 2)] });
  expect(prefill.wait()).toMatchObject({ keys: [1, 2], sampledTokenIds: [[3], [4]] });
  expect(sampleCalls()).toMatchObject([{ replayed: false, args: { 1: 2 } }]);

  const decode = { newBlockIds: [], numScheduledTokens: 1, specTokenIds: [] };
  const cachedRequests = [
    { key: 1, numComputedTokens: 3, ...decode },
    { key: 2, numComputedTokens: 1, ...decode },
  ];
  const result = runner.execute({ ...STEP, cachedRequests }).wait();
  expect(result).toMatchObject({ keys: [1, 2], sampledTokenIds: [[3], [4]], promptLogprobs: [null, null] });
  expect(result.logprobs[0]).toBeNull();
  expect([...result.logprobs[1]!.tokenIds]).toEqual([4, 4, 0]);
  const replayed = calls.filter((call) => call.replayed).map(({ op }) => op);
  expect(replayed).toEqual(['gather_token_ids', 'gather_rows', 'sample']);
  expect(sampleCalls()).toMatchObject([{ replayed: true, args: { 1: REPLAY_SIZE } }]);
  runner.close();
  logits.free();
  cpu.free(hidden);
});

test('a token counts from the step that samples it, before anyone has seen it; a part of the prompt samples none', () => {
  const model: Model = { kvCacheSpecs: () => new Map(), bindKvCache() {}, forward: (inputIds) => inputIds };
  const seen: [numTokens: number, samples: boolean][] = [];
  const stage: OutputStage = {
    begin: ({ rows }) => {
      for (const { state, samples } of rows) seen.push([state.numTokens, samples]);
      return { finish: () => () => expect.unreachable('nobody asks for the result') };
    },
    close() {},
  };
  const options = { maxNumSeqs: 1, maxNumBatchedTokens: 16, maxLogitRows: 1, maxModelLen: 32, vocabSize: VOCAB };
  const runner = new ModelRunner(cpu, model, NO_CACHE, options, { createStage: () => stage });
  runner.execute({ ...STEP, newRequests: [{ ...request(1, [5, 6, 7, 8], null), numScheduledTokens: 3 }] });
  for (const numComputedTokens of [3, 4, 5]) {
    const next = { key: 1, newBlockIds: [], numComputedTokens, numScheduledTokens: 1, specTokenIds: [] };
    runner.execute({ ...STEP, cachedRequests: [next] });
  }
  expect(seen).toEqual([
    [4, false],
    [4, true],
    [5, true],
    [6, true],
  ]);
  runner.close();
});

test('drafts are verified: those that hold are tokens, with the one behind them and their log probabilities', () => {
  const { device, calls } = observed();
  const hidden = cpu.alloc(16 * HIDDEN * 4, 'test');
  const logits = cpu.staging(8 * VOCAB * 4, 'test');
  // Row i likes token 3 + i.
  for (let row = 0; row < 8; row++) new Float32Array(logits.host)[row * VOCAB + 3 + row] = 5;
  const inputs: number[][] = [];
  const model = {
    vocabSize: VOCAB,
    forward: (inputIds: number, { numTokens }: { numTokens: number }) => {
      const copy = cpu.staging(numTokens * 4, 'test');
      cpu.ops.copy_bytes(inputIds, copy.ptr, numTokens * 4);
      copy.download(numTokens * 4);
      cpu.wait(cpu.record());
      inputs.push([...new Int32Array(copy.host, 0, numTokens)]);
      copy.free();
      return hidden;
    },
    computeLogits: () => logits.ptr,
  } as unknown as CausalLM;
  const limits = { maxNumSeqs: 2, maxNumBatchedTokens: 16, maxLogitRows: 8, maxModelLen: 32 };
  const runner = new ModelRunner(
    device,
    model,
    NO_CACHE,
    { ...limits, vocabSize: VOCAB },
    {
      createStage(tokens) {
        const stage = { maxLogitRows: 8, hiddenSize: HIDDEN, logprobsMode: 'raw_logprobs' } as const;
        return new SamplingStage(device, model, tokens, stage);
      },
    },
  );
  runner.execute({ ...STEP, newRequests: [request(1, [7, 8, 9], 1), request(2, [5], null)] }).wait();
  calls.length = 0;
  const step = (key: number, numComputedTokens: number, specTokenIds: number[]) => ({
    ...{ key, newBlockIds: [], numComputedTokens, numScheduledTokens: 1 + specTokenIds.length, specTokenIds },
  });
  // Its rows are sampled as 3, 4, 5, 6: the third draft does not hold.
  const cachedRequests = [step(1, 3, [3, 4, 9]), step(2, 1, [])];
  const result = runner.execute({ ...STEP, cachedRequests }).wait();
  expect(result.sampledTokenIds).toEqual([[3, 4, 5], [7]]);
  expect(result.logprobs[0]).toMatchObject({ numPositions: 3, width: 2 });
  expect([...result.logprobs[0]!.tokenIds]).toEqual([3, 3, 4, 4, 5, 5]);
  expect(calls.find(({ op }) => op === 'sample')!.args[1]).toBe(5);
  // Both were given token 3, then 4, by the prompt's step.
  expect(inputs[1]).toEqual([3, 3, 4, 9, 4]);

  runner.execute({ ...STEP, cachedRequests: [step(1, 6, [1]), step(2, 2, [])] }).wait();
  expect(inputs[2]).toEqual([5, 1, 7]);
  runner.close();
  logits.free();
  cpu.free(hidden);
});
