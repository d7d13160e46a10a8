import {
  CUBLAS_SONAMES,
  CUBLASLT_SONAMES,
  CUDART_SONAMES,
  type CudaLibraries,
  ensureCudaEmulation,
  libraryCandidates,
  NCCL_SONAMES,
} from '../../../scripts/build-cuda.ts';
import { createDevice } from '../../../src/device/create-device.ts';
import { openCudaEmulation } from '../../../src/device/cuda/open-cuda.ts';
import type { Device } from '../../../src/device/device.ts';
import type { FloatDType } from '../../../src/device/dtype.ts';
import { FLOAT32_ISA, openDevice } from '../harness.ts';

/** The CUDA device of the tests: the emulation, or the GPU of the machine where scripts/gpu-verify runs them. */
export const CUDA_DEVICE = process.env.BAO_TEST_CUDA_DEVICE === 'cuda' ? 'cuda' : 'cuda-emulation';

/** NVIDIA's libraries, or what stands in for them. */
export async function librariesUnderTest(): Promise<Omit<CudaLibraries, 'kernels'>> {
  if (CUDA_DEVICE === 'cuda-emulation') return ensureCudaEmulation({ quiet: true });
  return {
    cudart: libraryCandidates(CUDART_SONAMES),
    cublas: libraryCandidates(CUBLAS_SONAMES),
    cublasLt: libraryCandidates(CUBLASLT_SONAMES),
    nccl: libraryCandidates(NCCL_SONAMES),
  };
}

/** The CPU that it is compared with: with float32 products, which some processors have faster ones than. */
export function openReference(threads: number): Device {
  return openDevice(threads, FLOAT32_ISA);
}

/** @param checked every access of a kernel to memory is checked, where the device is emulated */
export function openDeviceUnderTest(options: { activationDtype?: FloatDType; checked: boolean }): Promise<Device> {
  const { activationDtype = 'bfloat16', checked } = options;
  if (CUDA_DEVICE === 'cuda') return createDevice(CUDA_DEVICE, { activationDtype });
  return openCudaEmulation({ index: 0, activationDtype, replaySizes: [] }, checked);
}
