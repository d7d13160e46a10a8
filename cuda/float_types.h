// bfloat16 and float16 as storage, with conversions that round to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define BAO_HOST_DEVICE __host__ __device__ inline
#else
#define BAO_HOST_DEVICE inline
#endif

namespace bao {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

BAO_HOST_DEVICE float to_float(float x) { return x; }

BAO_HOST_DEVICE float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

BAO_HOST_DEVICE float to_float(Half x) {
#if defined(__CUDACC__)
  __half_raw raw;
  raw.x = x.bits;
  return __half2float(__half(raw));
#else
  _Float16 value;
  std::memcpy(&value, &x.bits, 2);
  return static_cast<float>(value);
#endif
}

template <class T>
BAO_HOST_DEVICE T from_float(float x);

template <>
BAO_HOST_DEVICE float from_float<float>(float x) {
  return x;
}

template <>
BAO_HOST_DEVICE BFloat16 from_float<BFloat16>(float x) {
#if defined(__CUDACC__)
  return {static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(x)).x};
#else
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
#endif
}

template <>
BAO_HOST_DEVICE Half from_float<Half>(float x) {
#if defined(__CUDACC__)
  return {static_cast<__half_raw>(__float2half_rn(x)).x};
#else
  const _Float16 value = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &value, 2);
  return {bits};
#endif
}

// Two values in one register, the first in the low half.
template <class T>
BAO_HOST_DEVICE uint32_t pack(float low, float high) {
  return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
}

}  // namespace bao
