import { type FFIFunction, FFIType } from 'bun:ffi';
import { type NativeFunction, opSymbols } from '../cpu-library.ts';
import type { OpName } from '../ops.ts';
import { openLibrary } from './open-library.ts';

/** Ops that cuda/*.cu has. The rest of the table can't run on CUDA yet, but for the matrix products, which are cuBLAS's. */
export const CUDA_KERNEL_OPS = [
  'gather_token_ids',
  'copy_bytes',
  'embedding',
  'rms_norm',
  'fused_add_rms_norm',
  'layer_norm',
  'qk_norm_rope',
  'reshape_and_cache',
  'paged_attention',
  'encoder_attention',
  'act_and_mul',
  'activate',
  'swigluoai_and_mul',
  'copy_heads',
  'add',
  'soft_cap',
  'gather_rows',
  'grouped_linear',
  'moe_route',
  'moe_permute',
  'moe_combine',
  'quantized_linear',
  'quantized_linear_f32',
  'quantized_grouped_linear',
  'add_lora',
  'mean_rows',
  'sample',
  'logprobs',
  'copy_blocks',
] as const satisfies readonly OpName[];

/** What the library exports besides the ops. */
const RUNTIME = {
  bao_stream_create: { args: ['ptr', 'i32', 'i32', 'i32'], returns: 'ptr' },
  bao_stream_set_workspace: { args: ['ptr', 'ptr', 'i64'], returns: 'void' },
  bao_stream_destroy: { args: ['ptr'], returns: 'void' },
  bao_is_small_linear: { args: ['ptr', 'i64', 'ptr', 'i32', 'i32'], returns: 'i32' },
  bao_small_linear: {
    args: ['ptr', 'ptr', 'i64', 'ptr', 'i32', 'ptr', 'ptr', 'i64', 'i32', 'i32', 'i32', 'i32'],
    returns: 'i32',
  },
  bao_add_bias: { args: ['ptr', 'ptr', 'ptr', 'i64', 'i32', 'i32', 'i32'], returns: 'i32' },
  bao_convert_matrix: { args: ['ptr', 'ptr', 'i32', 'i32', 'i32', 'i64', 'ptr', 'i32'], returns: 'i32' },
  bao_probe_read: { args: ['ptr', 'ptr', 'i64', 'ptr'], returns: 'i32' },
  bao_fill_noise: { args: ['ptr', 'ptr', 'i64'], returns: 'i32' },
  bao_quantized_linear_bytes: { args: ['i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_quantized_linear_workspace_bytes: { args: ['i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_quantize_linear: { args: ['ptr', 'ptr', 'i32', 'i32', 'i32', 'i64', 'i32', 'ptr', 'i32'], returns: 'i32' },
  bao_pack_fp8_linear: { args: ['ptr', 'ptr', 'ptr', 'i32', 'i32', 'i64', 'i32', 'ptr'], returns: 'i32' },
  bao_kv_block_bytes: { args: ['i32', 'i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_sample_workspace_bytes: { args: ['i32', 'i32'], returns: FFIType.i64_fast },
  bao_logprobs_workspace_bytes: { args: ['i32', 'i32'], returns: FFIType.i64_fast },
  bao_add_lora_workspace_bytes: { args: ['i32', 'i32', 'i32'], returns: FFIType.i64_fast },
} as const satisfies Record<string, FFIFunction>;

/** Functions of libbao-cuda. */
export const KERNEL_SYMBOLS = { ...RUNTIME, ...opSymbols(CUDA_KERNEL_OPS) };

/** Errors of the CUDA runtime are returned by ops with this added (cuda/stream.h). */
export const KERNEL_CUDA_ERROR = 1000;

export type CudaKernels = { readonly [N in keyof typeof RUNTIME]: NativeFunction } & {
  /** `bao_<op>` by the op's name, for the ops that are kernels. */
  readonly ops: Readonly<Record<string, NativeFunction>>;
};

/** Opens libbao-cuda. libcudart must be open already: the kernels use the same one. */
export function openCudaKernels(path: string): CudaKernels {
  const functions = openLibrary('libbao-cuda', [path], KERNEL_SYMBOLS);
  const byName: Readonly<Record<string, NativeFunction>> = functions;
  const ops = Object.fromEntries(CUDA_KERNEL_OPS.map((name) => [name, byName[`bao_${name}`]!]));
  return { ...functions, ops };
}
