import { CString, type FFIFunction, type Pointer, ptr } from 'bun:ffi';
import type { NativeFunction } from '../cpu-library.ts';
import type { FloatDType } from '../dtype.ts';
import { NoCudaDeviceError } from './no-cuda-device.ts';
import { openLibrary } from './open-library.ts';

/** The functions of libcublas that are called, as cublas_api.h declares them. Each gives a cublasStatus_t unless it says otherwise. */
export const CUBLAS_SYMBOLS = {
  cublasGetProperty: { args: ['i32', 'ptr'], returns: 'i32' },
  cublasCreate_v2: { args: ['ptr'], returns: 'i32' },
  cublasDestroy_v2: { args: ['ptr'], returns: 'i32' },
  cublasSetStream_v2: { args: ['ptr', 'ptr'], returns: 'i32' },
  cublasSetWorkspace_v2: { args: ['ptr', 'ptr', 'u64'], returns: 'i32' },
  cublasGetStatusName: { args: ['i32'], returns: 'ptr' },
  cublasGemmEx: {
    args: [
      ...(['ptr', 'i32', 'i32', 'i32', 'i32', 'i32', 'ptr', 'ptr', 'i32', 'i32'] as const),
      ...(['ptr', 'i32', 'i32', 'ptr', 'ptr', 'i32', 'i32', 'i32', 'i32'] as const),
    ],
    returns: 'i32',
  },
  cublasGemmStridedBatchedEx: {
    args: [
      ...(['ptr', 'i32', 'i32', 'i32', 'i32', 'i32', 'ptr', 'ptr', 'i32', 'i32', 'i64'] as const),
      ...(['ptr', 'i32', 'i32', 'i64', 'ptr', 'ptr', 'i32', 'i32', 'i64', 'i32', 'i32', 'i32'] as const),
    ],
    returns: 'i32',
  },
} as const satisfies Record<string, FFIFunction>;

/** Constants of cublas_api.h and library_types.h, under their names there. */
export const CUBLAS_CONSTANTS = {
  MAJOR_VERSION: 0,
  CUBLAS_OP_N: 0,
  CUBLAS_OP_T: 1,
  CUDA_R_32F: 0,
  CUDA_R_16F: 2,
  CUDA_R_16BF: 14,
  CUBLAS_COMPUTE_32F: 68,
  CUBLAS_GEMM_DEFAULT: -1,
} as const;

/** The first release whose functions have the arguments above. */
const MIN_MAJOR_VERSION = 12;

const DATA_TYPES: Record<FloatDType, number> = {
  float32: CUBLAS_CONSTANTS.CUDA_R_32F,
  bfloat16: CUBLAS_CONSTANTS.CUDA_R_16BF,
  float16: CUBLAS_CONSTANTS.CUDA_R_16F,
};

/** A cuBLAS handle on one stream. Throws where a call fails. */
export class Cublas {
  readonly #functions: Record<keyof typeof CUBLAS_SYMBOLS, NativeFunction>;
  readonly #handle: number;
  readonly #one = new Float32Array([1]);
  readonly #zero = new Float32Array([0]);
  readonly #alpha = ptr(this.#one);
  readonly #beta = ptr(this.#zero);

  /** @param workspace memory that cuBLAS may use instead of its own, so that all of it is accounted for */
  constructor(candidates: readonly string[], stream: number, workspace: { ptr: number; bytes: number }) {
    this.#functions = openLibrary('libcublas', candidates, CUBLAS_SYMBOLS);
    const major = new Int32Array(1);
    const { MAJOR_VERSION } = CUBLAS_CONSTANTS;
    this.#check('cublasGetProperty', this.#functions.cublasGetProperty(MAJOR_VERSION, ptr(major)));
    if (major[0]! < MIN_MAJOR_VERSION) {
      throw new NoCudaDeviceError(`libcublas is of version ${major[0]}, at least ${MIN_MAJOR_VERSION} is needed`);
    }
    const handle = new BigUint64Array(1);
    this.#check('cublasCreate', this.#functions.cublasCreate_v2(ptr(handle)));
    this.#handle = Number(handle[0]);
    // The stream first: setting it takes a workspace away.
    this.#check('cublasSetStream', this.#functions.cublasSetStream_v2(this.#handle, stream));
    const { ptr: address, bytes } = workspace;
    this.#check('cublasSetWorkspace', this.#functions.cublasSetWorkspace_v2(this.#handle, address, bytes));
  }

  /**
   * Enqueues out[m, n] = x[m, k] · w[n, k]ᵀ, all row-major, accumulated in float32. Read as column-major, the row-major x is xᵀ and w is wᵀ,
   * so that outᵀ[n, m] = w · xᵀ is one call with w transposed.
   */
  linear(
    dtype: FloatDType,
    outDtype: FloatDType,
    [m, n, k]: readonly [m: number, n: number, k: number],
    [x, ldX]: readonly [ptr: number, ld: number],
    w: number,
    [out, ldOut]: readonly [ptr: number, ld: number],
  ): void {
    const { CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT } = CUBLAS_CONSTANTS;
    const type = DATA_TYPES[dtype];
    const status = this.#functions.cublasGemmEx(
      ...[this.#handle, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, this.#alpha],
      ...[w, type, k, x, type, ldX],
      ...[this.#beta, out, DATA_TYPES[outDtype], ldOut, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT],
    );
    this.#check('cublasGemmEx', status);
  }

  /**
   * As `linear`, for `batch` products whose matrices lie `stride` elements apart: outs[b] = xs[b] · ws[b]ᵀ, all dense.
   * A stride of 0 gives every product the same matrix.
   */
  batchedLinear(
    dtype: FloatDType,
    outDtype: FloatDType,
    [m, n, k]: readonly [m: number, n: number, k: number],
    batch: number,
    [x, strideX]: readonly [ptr: number, stride: number],
    [w, strideW]: readonly [ptr: number, stride: number],
    [out, strideOut]: readonly [ptr: number, stride: number],
  ): void {
    const { CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT } = CUBLAS_CONSTANTS;
    const type = DATA_TYPES[dtype];
    const status = this.#functions.cublasGemmStridedBatchedEx(
      ...[this.#handle, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, this.#alpha],
      ...[w, type, k, strideW, x, type, k, strideX],
      ...[this.#beta, out, DATA_TYPES[outDtype], n, strideOut, batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT],
    );
    this.#check('cublasGemmStridedBatchedEx', status);
  }

  /** Without looking at the status: a device that failed refuses it. */
  close(): void {
    this.#functions.cublasDestroy_v2(this.#handle);
  }

  #check(call: string, status: number): void {
    if (status === 0) return;
    throw new Error(`${call}: ${new CString(this.#functions.cublasGetStatusName(status) as Pointer)} (${status})`);
  }
}
