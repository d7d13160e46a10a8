// What the quantization of weights and that of activations share: groups of k with a scale each.
#pragma once

#include "../../quant.h"

#include "../simd.h"

namespace bao::BAO_ISA {
namespace {

template <int Bits>
constexpr int64_t kGroupWords = quant_group(Bits) / quant_word(Bits);

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
constexpr float kRound = 12582912.0f;
BAO_INLINE I round_to_int(F x) { return reinterpret_cast<I>(x + kRound) - 0x4b400000; }
// Below that a scale's reciprocal is not finite; such groups are all zero.
constexpr float kSmallestScale = 1e-36f;
constexpr float kInfinity = __builtin_inff(), kNaN = __builtin_nanf("");

template <class Fn>
BAO_INLINE void with_bits(int32_t bits, Fn f) {
  if (bits == 8) {
    f(std::integral_constant<int, 8>());
  } else {
    f(std::integral_constant<int, 4>());
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
