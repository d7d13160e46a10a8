/** Element types that cross the native boundary. The numbers are part of the ABI (cpu/abi.h, cuda/abi.h). */
export const DTYPE_CODES = {
  float32: 0,
  bfloat16: 1,
  float16: 2,
  int32: 3,
  int64: 4,
  uint8: 5,
  int8: 6,
  fp8_e4m3: 7,
} as const;

export type DType = keyof typeof DTYPE_CODES;

/** Types that weights and KV cache may be stored in by the kernels. */
export type FloatDType = 'float32' | 'bfloat16' | 'float16';

/** Types of the KV cache: 8-bit floats too (OCP E4M3; what is beyond 448 is stored as that). */
export type CacheDType = FloatDType | 'fp8_e4m3';

const BYTES: Record<DType, number> = {
  float32: 4,
  bfloat16: 2,
  float16: 2,
  int32: 4,
  int64: 8,
  uint8: 1,
  int8: 1,
  fp8_e4m3: 1,
};

/** Bytes of one element. */
export function dtypeBytes(dtype: DType): number {
  return BYTES[dtype];
}
