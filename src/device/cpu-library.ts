import { dlopen, type FFIFunction, FFIType } from 'bun:ffi';
import { type ArgType, OPS, type OpSpec } from './ops.ts';

/** Instruction sets that kernels are compiled for. The numbers are part of the ABI (cpu/abi.h). */
export const ISA_CODES = {
  portable: 0,
  avx2: 1,
  avx512: 2,
  avx512_vnni: 3,
  avx512_vbmi: 4,
  avx512_bf16: 5,
  avx512_fp16: 6,
  avx512_amx: 7,
} as const;

export type CpuIsa = keyof typeof ISA_CODES;

const ISA_TEXT: Record<CpuIsa, string> = {
  portable: 'portable kernels',
  avx2: 'AVX2',
  avx512: 'AVX-512',
  avx512_vnni: 'AVX-512 VNNI',
  avx512_vbmi: 'AVX-512 VBMI',
  avx512_bf16: 'AVX-512 BF16',
  avx512_fp16: 'AVX-512 FP16',
  avx512_amx: 'AMX',
};

/** The processor as the engine uses it, in words. */
export function describeCpu(threads: number, isa: CpuIsa): string {
  return `CPU, ${threads} thread${threads === 1 ? '' : 's'}, ${ISA_TEXT[isa]}`;
}

const FFI_TYPES = { ptr: 'ptr', 'ptr?': 'ptr', i32: 'i32', i64: 'i64', f32: 'f32' } as const satisfies Record<
  ArgType,
  string
>;

/** What the library exports besides the ops. */
const RUNTIME = {
  bao_detect_isa: { args: [], returns: 'i32' },
  bao_stream_create: { args: ['i32', 'i32'], returns: 'ptr' },
  bao_stream_destroy: { args: ['ptr'], returns: 'i32' },
  bao_stream_bind: { args: ['ptr', 'i32', 'ptr', 'i32'], returns: 'i32' },
  bao_stream_isa: { args: ['ptr'], returns: 'i32' },
  bao_stream_record: { args: ['ptr'], returns: FFIType.i64_fast },
  bao_stream_query: { args: ['ptr', FFIType.i64_fast], returns: 'i32' },
  bao_stream_wait: { args: ['ptr', FFIType.i64_fast], returns: 'i32' },
  bao_stream_begin_list: { args: ['ptr'], returns: 'ptr' },
  bao_stream_end_list: { args: ['ptr'], returns: 'i32' },
  bao_stream_replay: { args: ['ptr', 'ptr'], returns: 'i32' },
  bao_stream_destroy_list: { args: ['ptr', 'ptr'], returns: 'i32' },
  bao_memory_alloc: { args: ['i64'], returns: 'ptr' },
  bao_memory_free: { args: ['ptr'], returns: 'i32' },
  bao_packed_linear_bytes: { args: ['ptr', 'i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_pack_linear: { args: ['ptr', 'ptr', 'i32', 'i32', 'i32', 'i64', 'i32', 'ptr', 'i32'], returns: 'i32' },
  bao_quantized_linear_bytes: { args: ['i32', 'i32', 'i32'], returns: FFIType.i64_fast },
  bao_quantize_linear: { args: ['ptr', 'ptr', 'i32', 'i32', 'i32', 'i64', 'i32', 'ptr', 'i32'], returns: 'i32' },
  bao_pack_fp8_linear: { args: ['ptr', 'ptr', 'ptr', 'i32', 'i32', 'i64', 'i32', 'ptr'], returns: 'i32' },
  bao_kv_block_bytes: { args: ['i32', 'i32', 'i32', 'i32'], returns: FFIType.i64_fast },
} as const satisfies Record<string, FFIFunction>;

/** A native function as this side calls it: addresses and integers are numbers. */
export type NativeFunction = (...args: number[]) => number;

export type CpuLibrary = { readonly [N in keyof typeof RUNTIME]: NativeFunction } & {
  /** `bao_<op>` by the op's name. */
  readonly ops: Readonly<Record<string, NativeFunction>>;
  close(): void;
};

/** Declarations of `bao_<op>` for these ops: the stream, then the table's arguments. */
export function opSymbols(names: readonly string[]): Record<string, FFIFunction> {
  const specs: Readonly<Record<string, OpSpec>> = OPS;
  return Object.fromEntries(
    names.map((name) => {
      const types = Object.values(specs[name]!.args).map((type) => FFI_TYPES[type]);
      return [`bao_${name}`, { args: ['ptr', ...types], returns: 'i32' }];
    }),
  );
}

/** Opens the kernel library. Throws an Error that names the path where it can't be loaded or lacks a symbol. */
export function openCpuLibrary(path: string): CpuLibrary {
  const symbols: Record<string, FFIFunction> = { ...RUNTIME, ...opSymbols(Object.keys(OPS)) };
  const library = dlopen(path, symbols);
  const functions = library.symbols as unknown as Record<string, NativeFunction>;
  const ops = Object.fromEntries(Object.keys(OPS).map((name) => [name, functions[`bao_${name}`]!]));
  const runtime = functions as unknown as { [N in keyof typeof RUNTIME]: NativeFunction };
  return { ...runtime, ops, close: () => library.close() };
}
