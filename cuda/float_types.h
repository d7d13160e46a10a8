// bfloat16, float16 and OCP's 8-bit E4M3 as storage, with conversions that round to nearest, ties to even.
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

// No infinity, greatest number 448, NaN where all bits but the sign are set. Of the KV cache and of quantized weights.
struct Float8E4M3 {
  uint8_t bits;
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

// NaN is taken for the number that its bits would be.
BAO_HOST_DEVICE float finite_to_float(Float8E4M3 x) {
  // Where a float has its exponent, this one is 120 too low; what is subnormal here is it there.
  const uint32_t bits = (x.bits & 0x80u) << 24 | (x.bits & 0x7fu) << 20;
  float value;
  memcpy(&value, &bits, 4);
  return value * 0x1p120f;
}

BAO_HOST_DEVICE float to_float(Float8E4M3 x) {
  if ((x.bits & 0x7fu) != 0x7fu) return finite_to_float(x);
  const uint32_t nan = (x.bits & 0x80u) << 24 | 0x7fc00000u;
  float value;
  memcpy(&value, &nan, 4);
  return value;
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

// What is beyond the greatest number becomes that; NaN stays NaN.
template <>
BAO_HOST_DEVICE Float8E4M3 from_float<Float8E4M3>(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 24 & 0x80u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint8_t>(sign | 0x7fu)};
  // 448
  if (magnitude > 0x43e00000u) magnitude = 0x43e00000u;
  // Below 2^-6 there are subnormals: adding 2^14 leaves the number of their units in the low bits, rounded by the addition itself.
  if (magnitude < 0x3c800000u) {
    float shifted;
    memcpy(&shifted, &magnitude, 4);
    shifted += 0x1p14f;
    memcpy(&magnitude, &shifted, 4);
    return {static_cast<uint8_t>(sign | (magnitude - 0x46800000u))};
  }
  return {static_cast<uint8_t>(sign | ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u) - 0x3c000000u) >> 20))};
}

// Two values in one register, the first in the low half.
template <class T>
BAO_HOST_DEVICE uint32_t pack(float low, float high) {
  return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
}

}  // namespace bao
