/**
 * Runs every op's cases, attention with great heads and large tiles of quantized weights in the type that argv names, and prints those whose result
 * is not the CPU's. How much shared memory a block may have, BAO_CUDA_EMULATION_SHARED_MEMORY says, which the emulation reads once for a process.
 */

import { openCudaEmulation } from '../../../src/device/cuda/open-cuda.ts';
import type { FloatDType } from '../../../src/device/dtype.ts';
import { openReference } from './device-under-test.ts';
import { attentionCase, opCases } from './op-cases.ts';
import { firstDifference, type OpCase, runCase } from './op-runner.ts';
import { quantCases } from './quant-cases.ts';

const dtype = process.argv[2] as FloatDType;
const cpu = openReference(2);
const cuda = await openCudaEmulation({ index: 0, activationDtype: dtype, replaySizes: [] }, false);

/** Why the devices differ; null where they don't. */
function fault(each: OpCase): string | null {
  try {
    const [expected, actual] = [runCase(cpu, each, dtype), runCase(cuda, each, dtype)];
    const found = each.outputs.map((_, i) => firstDifference(actual[i]!, expected[i]!, dtype));
    return found.find((difference) => difference !== null) ?? null;
  } catch (error) {
    return (error as Error).message;
  }
}

const GREAT_HEADS = { heads: 4, kvHeads: 2, headDim: 256, blockSize: 16, window: 70, softCap: 30 };
const MIXED = [
  [1, 1],
  [90, 90],
  [600, 3],
] as const;
const cases = [
  ...opCases(dtype),
  attentionCase('great heads', GREAT_HEADS, MIXED, dtype),
  attentionCase('great heads, fp8 cache', { ...GREAT_HEADS, cacheDtype: 'fp8_e4m3' }, MIXED, dtype),
  attentionCase('heads of 136', { ...GREAT_HEADS, headDim: 136 }, MIXED, dtype),
  // In the largest tiles.
  ...quantCases([[200, 131, 140]]),
];
const faults = cases.flatMap((each) => {
  const text = fault(each);
  return text === null ? [] : [`${each.name}: ${text}`];
});
console.log(JSON.stringify({ numCases: cases.length, faults }));
cuda.close();
cpu.close();
