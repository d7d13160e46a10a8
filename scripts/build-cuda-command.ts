/**
 * `bun run build:cuda [--arch sm_80,sm_90a]`, `--arch native` or `--emulation`: builds the CUDA kernels, and prints what they take and the library's path;
 * with `--no-spills` it ends with 1 where a kernel spills more than a few registers.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gpuFacts } from '../src/device/cuda/gpu-facts.ts';
import { archOf, ensureCudaEmulation, ensureCudaKernels, RESOURCES } from './build-cuda.ts';
import { describeResources, type KernelResources } from './kernel-resources.ts';

/** Of registers, which `--no-spills` lets a thread spill: a few outside of the loops cost less than the occupancy that would spare them. */
const MAX_SPILLED_BYTES = 32;

/** The architecture that a server would build for. Throws "no CUDA device: …". */
async function nativeArch(): Promise<string> {
  return archOf((await gpuFacts('cuda')).computeCapability);
}

try {
  const at = process.argv.indexOf('--arch');
  const archs = at < 0 ? ['sm_80', 'sm_90a'] : (process.argv[at + 1] ?? '').split(',');
  const isNative = archs.length === 1 && archs[0] === 'native';
  if (process.argv.includes('--emulation')) console.log((await ensureCudaEmulation()).kernels);
  else {
    const path = await ensureCudaKernels(isNative ? [await nativeArch()] : archs);
    const resources: KernelResources[] = JSON.parse(readFileSync(join(dirname(path), RESOURCES), 'utf8'));
    console.log(describeResources(resources));
    console.log(path);
    const most = resources.reduce((max, { spillStoreBytes }) => Math.max(max, spillStoreBytes), 0);
    if (process.argv.includes('--no-spills') && most > MAX_SPILLED_BYTES)
      throw new Error(`a kernel spills ${most} bytes of registers, more than ${MAX_SPILLED_BYTES}`);
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
