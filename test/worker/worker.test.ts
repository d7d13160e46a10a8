import { afterAll, describe, expect, spyOn, test } from 'bun:test';
import { resolve } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { CpuDevice } from '../../src/device/cpu-device.ts';
import { CudaDevice } from '../../src/device/cuda/cuda-device.ts';
import { type Device, OutOfMemoryError } from '../../src/device/device.ts';
import { getKvCacheConfig } from '../../src/kv-cache/kv-cache-config.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import type { NewRequestData, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { Worker } from '../../src/worker/worker.ts';

const logging = configureLogging({ level: 'error' });
afterAll(() => {
  configureLogging(logging);
});

const ROOT = resolve(import.meta.dir, '../..');
const MAX_SEQS = 4;
const MAX_TOKENS = 64;
const BLOCKS_PER_REQUEST = 4;
const DEVICES = { cpu: CpuDevice, 'cuda-emulation': CudaDevice } as const;
type DeviceName = keyof typeof DEVICES;

interface Allocation {
  purpose: string;
  bytes: number;
}

/** What devices of a kind are asked for while `watch` runs; `allow` may refuse it. */
class Allocations {
  device: Device | null = null;
  readonly taken: Allocation[] = [];
  private readonly spies: { mockRestore(): void }[] = [];
  allow: (allocation: Allocation) => boolean = () => true;

  constructor(name: DeviceName) {
    const { prototype } = DEVICES[name];
    for (const method of ['alloc', 'staging'] as const) {
      const original = prototype[method] as (bytes: number, purpose: string) => never;
      const watching = this;
      const watched = function (this: Device, bytes: number, purpose: string): never {
        watching.device = this;
        watching.taken.push({ purpose, bytes });
        if (!watching.allow({ purpose, bytes })) throw new OutOfMemoryError(`no ${bytes} bytes for ${purpose}`);
        return original.call(this, bytes, purpose);
      };
      this.spies.push(spyOn(prototype, method).mockImplementation(watched as never));
    }
  }

  end(): void {
    for (const spy of this.spies) spy.mockRestore();
  }
}

async function startWorker(device: DeviceName, args: ConstructorParameters<typeof EngineArgs>[0]) {
  const config = await new EngineArgs({
    ...{ device, skipTokenizerInit: true, maxModelLen: 64, maxNumSeqs: MAX_SEQS, maxNumBatchedTokens: MAX_TOKENS },
    ...{ enableChunkedPrefill: true, kvCacheMemoryBytes: 4 << 20 },
    ...args,
  }).createEngineConfig();
  const worker = new Worker(config, 0);
  await worker.initDevice();
  await worker.loadModel();
  const { maxModelLen } = config.model;
  const kvCache = getKvCacheConfig(worker.kvCacheSpecs(), worker.determineAvailableMemory(), { maxModelLen });
  worker.initializeFromConfig(kvCache);
  return { worker, numGroups: kvCache.groups.length };
}

const STEP: SchedulerOutput = {
  ...{ newRequests: [], cachedRequests: [], totalNumScheduledTokens: 0, releasedKeys: [] },
  ...{ grammarBitmask: null, forcedTokens: [], waitsForLogits: false },
};

const ALL_KINDS: Partial<SamplingParams> = {
  ...{ temperature: 0.8, topK: 5, topP: 0.9, minP: 0.01, repetitionPenalty: 1.1, logprobs: 20 },
  logitBias: [[3, 2]],
};

/** Requests with prompts of equal length that fill a step. */
function requests(numGroups: number, params: Partial<SamplingParams>, lora: NewRequestData['lora']): NewRequestData[] {
  return Array.from({ length: MAX_SEQS }, (_, i) => {
    const numTokens = MAX_TOKENS / MAX_SEQS;
    const blocks = Array.from({ length: BLOCKS_PER_REQUEST }, (_, b) => 1 + i * BLOCKS_PER_REQUEST + b);
    return {
      ...{ key: i + 1, requestId: `r${i}`, numPromptTokens: numTokens, poolingParams: null, eosTokenIds: [], lora },
      ...{ tokenIds: Int32Array.from({ length: numTokens }, (_, t) => (7 * i + 3 * t) % 60), seed: BigInt(i) },
      samplingParams: { ...DEFAULT_SAMPLING_PARAMS, ...params },
      ...{ blockIds: Array.from({ length: numGroups }, () => blocks), numComputedTokens: 0 },
      numScheduledTokens: numTokens,
    };
  });
}

/** A step with the prompts, then one with a token of each: what they sampled, and what went wrong. */
function twoSteps(worker: Worker, newRequests: NewRequestData[]) {
  const prefill = worker.execute({ ...STEP, newRequests }).wait();
  const drafts = new Map(prefill.draftTokens?.map(({ key, tokenIds }) => [key, tokenIds]));
  const cachedRequests = newRequests.map(({ key, numScheduledTokens: numComputedTokens }) => {
    const specTokenIds = drafts.get(key) ?? [];
    return { key, newBlockIds: [], numComputedTokens, numScheduledTokens: 1 + specTokenIds.length, specTokenIds };
  });
  const decode = worker.execute({ ...STEP, cachedRequests }).wait();
  const releasedKeys = newRequests.map(({ key }) => key);
  worker.execute({ ...STEP, releasedKeys }).wait();
  return {
    tokens: [prefill.sampledTokenIds, decode.sampledTokenIds],
    failures: [...prefill.failures, ...decode.failures],
  };
}

const GOLDEN = (name: string) => ({ model: resolve(ROOT, 'test/goldens', name) });
const PIRATE = { id: 1, name: 'pirate', path: resolve(ROOT, 'models/demo-pirate') };

describe.each(['cpu', 'cuda-emulation'] as const)('a worker on %s', (device) => {
  test.each([
    ['a model with biases', GOLDEN('qwen2'), null],
    ['a mixture', GOLDEN('qwen3_moe'), null],
    ['a mixture of int8', { ...GOLDEN('qwen3_moe'), quantization: 'int8' }, null],
    ['a model with adapters', { model: 'demo', enableLora: true, maxLoraRank: 16 }, PIRATE],
  ] as const)('takes no memory for a step: %s', async (_, args, lora) => {
    const allocations = new Allocations(device);
    try {
      const { worker, numGroups } = await startWorker(device, args);
      if (lora !== null) worker.addLora(lora);
      allocations.taken.length = 0;
      const { tokens, failures } = twoSteps(worker, requests(numGroups, ALL_KINDS, lora));
      expect(allocations.taken).toEqual([]);
      expect(failures).toEqual([]);
      expect(tokens.flat(2)).toHaveLength(2 * MAX_SEQS);
      worker.shutdown();
    } finally {
      allocations.end();
    }
  });

  test('takes no memory for drafts, which hold where model and draft model are the same', async () => {
    const allocations = new Allocations(device);
    try {
      const speculativeConfig = { model: 'demo', num_speculative_tokens: 3 };
      const { worker, numGroups } = await startWorker(device, { model: 'demo', speculativeConfig });
      allocations.taken.length = 0;
      const { tokens, failures } = twoSteps(worker, requests(numGroups, ALL_KINDS, null));
      expect(allocations.taken).toEqual([]);
      expect(failures).toEqual([]);
      expect(tokens.map((step) => step.map(({ length }) => length))).toEqual([
        Array(MAX_SEQS).fill(1),
        Array(MAX_SEQS).fill(4),
      ]);
      worker.shutdown();
    } finally {
      allocations.end();
    }
  });

  test('drafts fewer tokens where they do not hold, and more where all do', async () => {
    const speculativeConfig = { model: 'demo', num_speculative_tokens: 4 };
    const { worker, numGroups } = await startWorker(device, { model: 'demo', speculativeConfig });
    const [request] = requests(numGroups, { temperature: 0 }, null);
    let { draftTokens } = worker.execute({ ...STEP, newRequests: [request!] }).wait();
    let numComputedTokens = request!.tokenIds.length;
    const lengths: number[] = [];
    for (const isRight of [false, false, false, false, true, true]) {
      const { tokenIds } = draftTokens![0]!;
      lengths.push(tokenIds.length);
      const specTokenIds = isRight ? tokenIds : tokenIds.map((id) => (id + 1) % 60);
      const step = { key: request!.key, newBlockIds: [], numScheduledTokens: 1 + specTokenIds.length, specTokenIds };
      const result = worker.execute({ ...STEP, cachedRequests: [{ ...step, numComputedTokens }] }).wait();
      expect(result.sampledTokenIds[0]).toHaveLength(isRight ? 1 + tokenIds.length : 1);
      numComputedTokens += result.sampledTokenIds[0]!.length;
      draftTokens = result.draftTokens;
    }
    expect([...lengths, draftTokens![0]!.tokenIds.length]).toEqual([4, 3, 2, 1, 1, 3, 4]);
    worker.shutdown();
  });

  test('that can not wake for lack of memory keeps none of what it took, whatever it lacks, and wakes when there is some', async () => {
    const allocations = new Allocations(device);
    try {
      const { worker, numGroups } = await startWorker(device, { ...GOLDEN('llama'), loadFormat: 'dummy' });
      const awake = allocations.device!.memoryReport();
      const expected = twoSteps(worker, requests(numGroups, {}, null)).tokens;
      worker.sleep();
      const asleep = allocations.device!.memoryReport();
      expect(asleep).not.toContainKeys(['token table', 'KV cache', 'weights', 'CUDA graphs']);
      let isAwake = false;
      for (let allowed = 0; !isAwake; allowed++) {
        let left = allowed;
        allocations.allow = () => left-- > 0;
        try {
          await worker.wakeUp(['weights', 'kv_cache']);
          isAwake = true;
        } catch (error) {
          expect(error).toBeInstanceOf(OutOfMemoryError);
          // Weights that were read stay for the next call; the rest of what was taken is back.
          expect(allocations.device!.memoryReport()).not.toContainKeys(['token table', 'step inputs', 'sampling']);
          worker.sleep();
          expect(allocations.device!.memoryReport()).toEqual(asleep);
        }
      }
      expect(allocations.device!.memoryReport()).toEqual(awake);
      expect(twoSteps(worker, requests(numGroups, {}, null)).tokens).toEqual(expected);
      worker.shutdown();
    } finally {
      allocations.end();
    }
  });

  test('counts the bytes of quantized weights as those that they have', async () => {
    const bytesAs = async (quantization: string | null) => {
      const allocations = new Allocations(device);
      try {
        const args = { ...GOLDEN('qwen3_moe'), loadFormat: 'dummy', dtype: 'float32', quantization } as const;
        const { worker } = await startWorker(device, args);
        const work = worker.modelWork();
        const step = work.newStep();
        // So many tokens that each expert has some.
        step.addSequence(MAX_TOKENS, MAX_TOKENS, 1);
        worker.shutdown();
        const weights = allocations.taken.filter(({ purpose }) => purpose === 'weights');
        return { inMemory: weights.reduce((sum, { bytes }) => sum + bytes, 0), read: work.estimate(step).readBytes };
      } finally {
        allocations.end();
      }
    };
    const [float32, int8, int4] = [await bytesAs(null), await bytesAs('int8'), await bytesAs('int4')];
    expect(int8.inMemory).toBeLessThan(float32.inMemory);
    expect(float32.read - int8.read).toBe(float32.inMemory - int8.inMemory);
    expect(float32.read - int4.read).toBe(float32.inMemory - int4.inMemory);
  });

  test.each([
    ['prompt log probabilities', 'prompt logprobs', { promptLogprobs: 2 }],
    ['more log probabilities than most want', 'sampling', { logprobs: -1 }],
    ['long lists', 'sampling', { allowedTokenIds: Array.from({ length: 1000 }, (_, i) => i % 60) }],
  ])('ends a request whose %s have no room, and no other', async (_, purpose, params) => {
    const allocations = new Allocations(device);
    try {
      const { worker, numGroups } = await startWorker(device, {
        ...{ ...GOLDEN('llama'), loadFormat: 'dummy', hfOverrides: { vocab_size: 600 } },
      });
      const all = requests(numGroups, { temperature: 0 }, null);
      const expected = twoSteps(worker, all).tokens;
      allocations.allow = (allocation) => allocation.purpose !== purpose;
      all[1]!.samplingParams = { ...all[1]!.samplingParams, ...params };
      const { tokens, failures } = twoSteps(worker, all);
      expect(failures[0]).toEqual({
        key: 2,
        message: expect.stringContaining('not enough memory for the log probabilities, lists of tokens'),
      });
      expect(new Set(failures.map(({ key }) => key))).toEqual(new Set([2]));
      const ofOthers = (steps: number[][][]) => steps.map((rows) => rows.filter((_, row) => row !== 1));
      expect(ofOthers(tokens)).toEqual(ofOthers(expected));
      worker.shutdown();
    } finally {
      allocations.end();
    }
  });
});
