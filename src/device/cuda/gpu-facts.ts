import { CUDART_SONAMES, ensureCudaEmulation, libraryCandidates } from '../../../scripts/build-cuda.ts';
import { CudaRuntime } from './cuda-runtime.ts';

/** What decides the size of a GPU's batches, and how many engine cores there can be. */
export interface GpuFacts {
  numDevices: number;
  /** Of the first device, as what follows. */
  memoryBytes: number;
  /** "90" */
  computeCapability: string;
}

/** Throws a NoCudaDeviceError. */
export async function gpuFacts(device: 'cuda' | 'cuda-emulation'): Promise<GpuFacts> {
  const candidates =
    device === 'cuda' ? libraryCandidates(CUDART_SONAMES) : (await ensureCudaEmulation({ quiet: true })).cudart;
  const runtime = new CudaRuntime(candidates);
  const numDevices = runtime.deviceCount();
  const { computeCapability } = runtime.selectDevice(0);
  return { numDevices, memoryBytes: runtime.memoryInfo().totalBytes, computeCapability };
}
