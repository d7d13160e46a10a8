import { describe, expect, test } from 'bun:test';
import type { UsageContext } from '../../src/config/batch-defaults.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import type { GpuFacts } from '../../src/device/cuda/gpu-facts.ts';

const GIB = 2 ** 30;
const H100: GpuFacts = { numDevices: 1, memoryBytes: 79 * GIB, computeCapability: '90' };
const A100: GpuFacts = { numDevices: 1, memoryBytes: 79 * GIB, computeCapability: '80' };
const L4: GpuFacts = { numDevices: 1, memoryBytes: 22 * GIB, computeCapability: '89' };

async function limitsOn(gpu: GpuFacts, usage: UsageContext, given: Partial<FlagValues> = {}) {
  const args = new EngineArgs({ model: 'demo', device: 'cuda', ...given });
  const { scheduler } = await args.createEngineConfig({ gpuFacts: async () => gpu }, usage);
  return [scheduler.maxNumSeqs, scheduler.maxNumBatchedTokens];
}

describe("a GPU's batches are vLLM's", () => {
  test.each([
    ['H100', H100, [1024, 8192], [1024, 16384]],
    ['A100', A100, [256, 2048], [256, 8192]],
    ['L4', L4, [256, 2048], [256, 8192]],
  ] as const)('%s', async (_, gpu, server, program) => {
    expect(await limitsOn(gpu, 'api-server')).toEqual([...server]);
    expect(await limitsOn(gpu, 'llm-class')).toEqual([...program]);
  });

  test('what is given counts, and the rest follows it', async () => {
    expect(await limitsOn(H100, 'api-server', { maxNumSeqs: 2, maxModelLen: 100 })).toEqual([2, 200]);
    expect(await limitsOn(H100, 'api-server', { maxNumBatchedTokens: 500 })).toEqual([500, 500]);
  });

  test('a device is asked only where something depends on it', async () => {
    const none = () => Promise.reject(new Error('asked'));
    const limits = { maxNumSeqs: 4, maxNumBatchedTokens: 64 };
    await new EngineArgs({ model: 'demo', device: 'cuda', ...limits }).createEngineConfig({ gpuFacts: none });
    await new EngineArgs({ model: 'demo' }).createEngineConfig({ gpuFacts: none });
    const asking = new EngineArgs({ model: 'demo', device: 'cuda' }).createEngineConfig({ gpuFacts: none });
    expect(asking).rejects.toThrow('asked');
  });
});
