// Arithmetic of groups of k that have a scale, in the CPU's order and with its roundings: nothing is fused. See cpu/kernels/quant/quant_group.h.
#pragma once

#include "platform.h"

namespace bao {

// Below that a scale's reciprocal is not finite; such groups are all zero.
constexpr float kSmallestScale = 1e-36f;
// Adding it to a small float leaves the nearest integer, ties to even, in the low bits; taking it away again gives that.
constexpr float kRound = 12582912.0f;
constexpr int32_t kRoundBits = 0x4b400000;

__device__ inline float rounded(float x) { return __fadd_rn(__fadd_rn(x, kRound), -kRound); }

// A group's scale and zero point in one word.
__device__ inline float scale_of(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
__device__ inline uint32_t zero_of(uint32_t word) { return word & 0xffffu; }

// What a group adds to an output's sum: its products are an integer. Groups are added in order, from 0.
__device__ inline float scaled(float product, float weight_scale, float x_scale) {
  return __fmul_rn(product, __fmul_rn(weight_scale, x_scale));
}

// Numbers of 4 bits, one in each byte, less their zero point: as signed bytes. `zeros` has the zero point in each byte.
__device__ inline uint32_t without_zero(uint32_t numbers, uint32_t zeros) {
  // The upper bit, set meanwhile, keeps bytes from borrowing.
  return ((numbers | 0x80808080u) - zeros) ^ 0x80808080u;
}

// Four weights of a word as signed bytes: of 8 bits all, of 4 bits those of the bytes' low (half 0) or high halves.
template <int Bits>
__device__ inline uint32_t signed_bytes(uint32_t word, int half, uint32_t zeros) {
  if (Bits == 8) return word;
  return without_zero(word >> (4 * half) & 0x0f0f0f0fu, zeros);
}

// A zero point in each byte.
__device__ inline uint32_t zeros_of(uint32_t word) { return zero_of(word) * 0x01010101u; }

}  // namespace bao
