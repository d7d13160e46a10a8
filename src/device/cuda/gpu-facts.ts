import { CUDART_SONAMES, ensureCudaEmulation, libraryCandidates } from '../../../scripts/build-cuda.ts';
import { CudaRuntime } from './cuda-runtime.ts';

/** What decides the size of a GPU's batches. */
export interface GpuFacts {
  memoryBytes: number;
  /** "90" */
  computeCapability: string;
}

/** Of the first device. Throws a NoCudaDeviceError. */
export async function gpuFacts(device: 'cuda' | 'cuda-emulation'): Promise<GpuFacts> {
  const candidates =
    device === 'cuda' ? libraryCandidates(CUDART_SONAMES) : (await ensureCudaEmulation({ quiet: true })).cudart;
  const runtime = new CudaRuntime(candidates);
  const { computeCapability } = runtime.selectDevice(0);
  return { memoryBytes: runtime.memoryInfo().totalBytes, computeCapability };
}
