// What products and attention have in common where they multiply halves (AVX-512 FP16).
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {
namespace {

// Powers of two, inverse to each other, of which the first brings numbers of which `greatest` is the greatest magnitude to below
// 2^(kExponent + 1), and that one to 2^kExponent at least. (Subnormal numbers stay smaller.)
struct Scale {
  float to_half, from_half;
};
template <int kExponent>
BAO_INLINE Scale scale_for(float greatest) {
  const uint32_t biased = float_to_bits(greatest) >> 23, lowest = kExponent + 1;
  const uint32_t exponent = biased < lowest ? lowest : biased;
  return {bits_to_float((254 + kExponent - exponent) << 23), bits_to_float((exponent - kExponent) << 23)};
}

#if defined(__AVX512FP16__)
typedef __m512h Halves;

BAO_INLINE void add_product(Halves& acc, Halves a, Halves b) { asm("vfmadd231ph %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b)); }
// b is one number.
BAO_INLINE void add_product(Halves& acc, Halves a, const uint16_t& b) {
  asm("vfmadd231ph %2%{1to32%}, %1, %0" : "+v"(acc) : "v"(a), "m"(b));
}

BAO_INLINE F lower_half(Halves v) { return _mm512_cvtxph_ps(_mm512_castph512_ph256(v)); }
BAO_INLINE F upper_half(Halves v) {
  return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(_mm512_castph_si512(v), 1)));
}
#endif

}  // namespace
}  // namespace bao::BAO_ISA
