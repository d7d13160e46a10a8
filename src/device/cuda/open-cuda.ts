import {
  archOf,
  CUBLAS_SONAMES,
  CUBLASLT_SONAMES,
  CUDART_SONAMES,
  ensureCudaEmulation,
  ensureCudaKernels,
  libraryCandidates,
} from '../../../scripts/build-cuda.ts';
import type { FloatDType } from '../dtype.ts';
import { CudaDevice } from './cuda-device.ts';

export interface OpenCudaOptions {
  /** See CudaDeviceOptions. */
  index: number;
  activationDtype: FloatDType;
  /** See DeviceOptions. */
  replaySizes: readonly number[];
}

const isDebug = () => process.env.BAO_DEBUG_KERNELS === '1';
const isChecked = () => process.env.BAO_CUDA_EMULATION_CHECK === '1';

/** Opens a real device; its kernels are built by nvcc where they have not been. Throws "no CUDA device: …". */
export function openCuda(options: OpenCudaOptions): Promise<CudaDevice> {
  return CudaDevice.open({
    ...options,
    type: 'cuda',
    cudart: libraryCandidates(CUDART_SONAMES),
    cublas: libraryCandidates(CUBLAS_SONAMES),
    cublasLt: libraryCandidates(CUBLASLT_SONAMES),
    kernels: (capability) => ensureCudaKernels([archOf(capability)]),
    debug: isDebug(),
  });
}

/**
 * Opens an emulated device: the same kernels, compiled for the CPU, and stand-ins for NVIDIA's libraries. Only in a checkout.
 * @param checked every access of a kernel to memory is checked, many times slower; by default where BAO_CUDA_EMULATION_CHECK is 1
 */
export async function openCudaEmulation(options: OpenCudaOptions, checked = isChecked()): Promise<CudaDevice> {
  const { cudart, cublas, cublasLt, kernels } = await ensureCudaEmulation({ quiet: true, checked });
  return CudaDevice.open({
    ...options,
    type: 'cuda-emulation',
    cudart,
    cublas,
    cublasLt,
    kernels: () => Promise.resolve(kernels),
    debug: isDebug(),
    exactMemory: checked,
  });
}
