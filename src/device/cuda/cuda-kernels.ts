import { type FFIFunction, FFIType } from 'bun:ffi';
import { type NativeFunction, opSymbols } from '../cpu-library.ts';
import { OPS } from '../ops.ts';
import { openLibrary } from './open-library.ts';

/** Ops that are not kernels of the library: matrix products are cuBLAS's. */
const CUBLAS_OPS: readonly string[] = ['linear', 'linear_f32'];

const RUNTIME = {
  bao_stream_create: { args: ['ptr', 'i32', 'i32'], returns: 'ptr' },
  bao_stream_set_workspace: { args: ['ptr', 'ptr', 'i64'], returns: 'void' },
  bao_stream_destroy: { args: ['ptr'], returns: 'void' },
  bao_add_bias: { args: ['ptr', 'ptr', 'ptr', 'i64', 'i32', 'i32', 'i32'], returns: 'i32' },
  bao_convert_matrix: { args: ['ptr', 'ptr', 'i32', 'i32', 'i32', 'i64', 'ptr', 'i32'], returns: 'i32' },
  bao_kv_block_bytes: { args: ['i32', 'i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_sample_workspace_bytes: { args: ['i32', 'i32'], returns: FFIType.i64_fast },
  bao_logprobs_workspace_bytes: { args: ['i32', 'i32'], returns: FFIType.i64_fast },
} as const satisfies Record<string, FFIFunction>;

/** Errors of the CUDA runtime are returned by ops with this added (cuda/stream.h). */
export const KERNEL_CUDA_ERROR = 1000;

export type CudaKernels = { readonly [N in keyof typeof RUNTIME]: NativeFunction } & {
  /** `bao_<op>` by the op's name, for the ops that are kernels. */
  readonly ops: Readonly<Record<string, NativeFunction>>;
};

/** Opens libbao-cuda. libcudart must be open already: the kernels use the same one. */
export function openCudaKernels(path: string): CudaKernels {
  const names = Object.keys(OPS).filter((name) => !CUBLAS_OPS.includes(name));
  const functions = openLibrary('libbao-cuda', [path], { ...RUNTIME, ...opSymbols(names) });
  const ops = Object.fromEntries(names.map((name) => [name, functions[`bao_${name}` as keyof typeof functions]]));
  return { ...functions, ops };
}
