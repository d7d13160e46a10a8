// What the TypeScript side (src/device) and the kernels agree on: codes, limits and the export macro.
// Ops themselves are declared by src/device/ops.ts: an op `name` is `int32_t bao_name(void* stream, ...)`.
#pragma once

#include <cstddef>
#include <cstdint>

#define BAO_EXPORT extern "C" __attribute__((visibility("default")))

namespace bao {

// DTYPE_CODES of src/device/dtype.ts.
enum DType : int32_t {
  kFloat32 = 0,
  kBFloat16 = 1,
  kFloat16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kUInt8 = 5,
  kInt8 = 6,
  kFp8E4M3 = 7,
};

// ERROR_TEXT of src/device/ops.ts. 0 is success.
enum Error : int32_t {
  kOk = 0,
  kBadShape = 1,
  kBadDType = 2,
  kNullPointer = 3,
  kStreamClosed = 4,
  kOutOfMemory = 5,
};

// Instruction sets that kernels are compiled for, each level including the ones below it on its architecture.
enum Isa : int32_t {
  kPortable = 0,  // SSE2 on x86-64, NEON on arm64, whatever the compiler's baseline has elsewhere
  kAvx2 = 1,      // AVX2, FMA, F16C
  kAvx512 = 2,    // AVX-512 F, BW, DQ, VL
  kAvx512Vnni = 3,  // and VNNI
  kAvx512Vbmi = 4,  // and VBMI
  kAvx512Bf16 = 5,  // and BF16
  kAvx512Fp16 = 6,  // and FP16, VBMI2, GFNI
  kAvx512Amx = 7,   // and AMX: TILE, BF16, INT8
};

// Static: an inline function compiled for AVX-512 must not become the whole library's (see kernels/simd.h).
static constexpr bool is_float_dtype(int32_t dtype) { return dtype >= kFloat32 && dtype <= kFloat16; }
static constexpr int64_t float_dtype_bytes(int32_t dtype) { return dtype == kFloat32 ? 4 : 2; }
static constexpr bool is_cache_dtype(int32_t dtype) { return is_float_dtype(dtype) || dtype == kFp8E4M3; }
static constexpr int64_t cache_dtype_bytes(int32_t dtype) { return dtype == kFp8E4M3 ? 1 : float_dtype_bytes(dtype); }
static constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace bao
