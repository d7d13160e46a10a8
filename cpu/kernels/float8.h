// 8-bit floats of the KV cache and of quantized weights.
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {

// OCP 8-bit floating point E4M3: no infinity, greatest number 448, NaN where all other bits are set.
struct Float8E4M3 {
  uint8_t bits;

  bool is_nan() const { return (bits & 0x7f) == 0x7f; }
};

// The next kLanes numbers over 256, NaN taken for the number that its bits would be: a half's exponent has one bit more and a bias that
// is 8 more.
BAO_INLINE F load_over_256(const Float8E4M3* p) {
#if defined(__AVX512F__)
  const H wide = reinterpret_cast<H>(_mm256_cvtepi8_epi16(load_bits<__m128i>(p)));
#else
  typedef int8_t Signed __attribute__((vector_size(kLanes)));
  typedef int16_t Wide __attribute__((vector_size(kLanes * 2)));
  const H wide = reinterpret_cast<H>(__builtin_convertvector(load_bits<Signed>(p), Wide));
#endif
  return from_half_bits(wide << 7 & 0xbfff);
}
BAO_INLINE F load(const Float8E4M3* p) {
#if defined(__AVX512F__)
  const __m128i magnitudes = _mm_set1_epi8(0x7f);
  const __mmask16 numbers = _mm_test_epi8_mask(_mm_xor_si128(load_bits<__m128i>(p), magnitudes), magnitudes);
  return _mm512_mask_mul_ps(set1(__builtin_nanf("")), numbers, load_over_256(p), set1(256.0f));
#else
  const U magnitude = __builtin_convertvector(load_bits<B>(p), U) & 0x7fu;
  const F number = load_over_256(p) * 256.0f;
  return as_float(as_bits(number) | (reinterpret_cast<U>(magnitude == 0x7fu) & 0x7fc00000u));
#endif
}

#if defined(__AVX512F__)
// Every number is a bfloat16, which is two bytes: those of 64 numbers are looked up, interleaved, and taken apart like other bfloat16
// (a shift gives the even ones, a mask the odd ones). That is 13 instructions with VBMI and 20 without, where as many numbers by way of
// halves take 36.

constexpr uint16_t bf16_of_e4m3(int magnitude) {
  if (magnitude == 0x7f) return 0x7fc0;
  if (magnitude == 0) return 0;
  // A subnormal number is shifted until its leading bit is where a normal one has the exponent's lowest.
  int exponent = 120;
  for (; magnitude < 8; magnitude <<= 1) exponent--;
  return static_cast<uint16_t>((magnitude << 4) + (exponent << 7));
}
static_assert(bf16_of_e4m3(1) == 0x3b00 && bf16_of_e4m3(7) == 0x3c60 && bf16_of_e4m3(8) == 0x3c80 && bf16_of_e4m3(126) == 0x43e0);

template <int N>
struct ByteTable {
  alignas(64) uint8_t bytes[N];

  BAO_INLINE_MEMBER __m512i vector(int index = 0) const { return _mm512_load_si512(bytes + index * 64); }
};
template <int N, class Fn>
constexpr ByteTable<N> byte_table(Fn fn) {
  ByteTable<N> table{};
  for (int i = 0; i < N; i++) table.bytes[i] = static_cast<uint8_t>(fn(i));
  return table;
}

// Of a subnormal number: what changes its upper byte from a normal one's, and its lower byte.
constexpr auto kSubnormalHighBytes = byte_table<64>([](int i) { return i % 16 < 8 ? 0x3c ^ (bf16_of_e4m3(i % 16) >> 8) : 0; });
constexpr auto kSubnormalLowBytes = byte_table<64>([](int i) { return i % 16 < 8 ? bf16_of_e4m3(i % 16) & 0xff : 0; });

#if defined(__AVX512VBMI__)
constexpr auto kHighBytes = byte_table<128>([](int magnitude) { return bf16_of_e4m3(magnitude) >> 8; });
constexpr auto kLowBytes = byte_table<128>([](int magnitude) { return bf16_of_e4m3(magnitude) & 0xff; });

BAO_INLINE void bf16_bytes(__m512i numbers, __m512i& high, __m512i& low) {
  // (VPERMI2B, which looks up in both halves of a table at once, is three operations in Intel's cores.)
  const __mmask64 lower = _mm512_testn_epi8_mask(numbers, _mm512_set1_epi8(0x40));
  high = _mm512_permutexvar_epi8(numbers, kHighBytes.vector(1));
  high = _mm512_mask_permutexvar_epi8(high, lower, numbers, kHighBytes.vector(0));
  low = _mm512_permutexvar_epi8(numbers, kLowBytes.vector(1));
  low = _mm512_mask_permutexvar_epi8(low, lower, numbers, kLowBytes.vector(0));
  // high | (numbers & sign)
  high = _mm512_ternarylogic_epi32(high, numbers, _mm512_set1_epi8(-128), 0xf8);
}
#else
// By half a byte, in each 16 bytes: a normal number's high byte depends on its upper half, its low byte on the lower. Others differ.
constexpr auto kHighBytes = byte_table<64>([](int i) { return (i & 8) << 4 | (0x3c + (i & 7)); });

BAO_INLINE void bf16_bytes(__m512i numbers, __m512i& high, __m512i& low) {
  const __m512i halves = _mm512_set1_epi8(0x0f);
  const __m512i lower = _mm512_and_si512(numbers, halves);
  const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(numbers, 4), halves);
  const __mmask64 subnormal = _mm512_testn_epi8_mask(numbers, _mm512_set1_epi8(0x78));
  const __mmask64 nan = _mm512_cmpeq_epi8_mask(_mm512_or_si512(numbers, _mm512_set1_epi8(-128)), _mm512_set1_epi8(-1));
  high = _mm512_shuffle_epi8(kHighBytes.vector(), upper);
  high = _mm512_xor_si512(high, _mm512_maskz_shuffle_epi8(subnormal, kSubnormalHighBytes.vector(), lower));
  high = _mm512_mask_blend_epi8(nan, high, _mm512_set1_epi8(0x7f));
  low = _mm512_mask_shuffle_epi8(_mm512_slli_epi16(lower, 4), subnormal, kSubnormalLowBytes.vector(), lower);
}
#endif

// Four times 16 bytes so that, of words made of them by 128 bits, the lower and the upper 64 bits are two vectors' elements in turn.
BAO_INLINE __m512i pair_vectors(__m512i bytes) {
#if defined(__AVX512VBMI__)
  constexpr static auto kOrder = byte_table<64>([](int i) { return i % 16 / 8 * 32 + i % 2 * 16 + i / 16 * 4 + i % 8 / 2; });
  return _mm512_permutexvar_epi8(kOrder.vector(), bytes);
#else
  constexpr static auto kInLane = byte_table<64>([](int i) { return i % 16 / 8 * 8 + i % 2 * 4 + i % 8 / 2; });
  const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes, bytes), kInLane.vector());
#endif
}

// Two or four vectors.
template <int NV>
BAO_INLINE __m512i load_bytes(const Float8E4M3* p, int64_t ld) {
  if (__builtin_expect(ld == kLanes, 1)) {
    if constexpr (NV == 2) return _mm512_zextsi256_si512(load_bits<__m256i>(p));
    return load_bits<__m512i>(p);
  }
  __m512i bytes = _mm512_inserti32x4(_mm512_zextsi128_si512(load_bits<__m128i>(p)), load_bits<__m128i>(p + ld), 1);
  if constexpr (NV == 2) return bytes;
  bytes = _mm512_inserti32x4(bytes, load_bits<__m128i>(p + 2 * ld), 2);
  return _mm512_inserti32x4(bytes, load_bits<__m128i>(p + 3 * ld), 3);
}

BAO_INLINE void split_words(__m512i words, F* out) {
  const U pairs = reinterpret_cast<U>(words);
  out[0] = as_float(pairs << 16);
  out[1] = as_float(pairs & 0xffff0000u);
}

template <int NV>
BAO_INLINE void load_vectors(const Float8E4M3* p, int64_t ld, F* out) {
  if constexpr (NV > 4) {
    load_vectors<4>(p, ld, out);
    load_vectors<NV - 4>(p + 4 * ld, ld, out + 4);
  } else if constexpr (NV % 2 == 0) {
    __m512i high, low;
    bf16_bytes(pair_vectors(load_bytes<NV>(p, ld)), high, low);
    split_words(_mm512_unpacklo_epi8(low, high), out);
    if constexpr (NV == 4) split_words(_mm512_unpackhi_epi8(low, high), out + 2);
  } else {
    load_vectors<NV, Float8E4M3>(p, ld, out);
  }
}
#endif

#if defined(__AVX512FP16__)
// 64 numbers over 256 as halves, the first 8 of every 16 in `low` and the others in `high`; NaN is taken for 480. A half has an exponent
// bit more, below the sign, so that the bits of a number are those of two bytes (matrices: row i of eight, from the lowest byte
// on, has the bit that becomes bit 7 - i).
BAO_INLINE void widen_over_256(__m512i numbers, __m512h& low, __m512h& high) {
  const __m512i uppers = _mm512_gf2p8affine_epi64_epi8(numbers, _mm512_set1_epi64(0x0204081020400080), 0);
  const __m512i lowers = _mm512_gf2p8affine_epi64_epi8(numbers, _mm512_set1_epi64(0x0000000000000001), 0);
  low = _mm512_castsi512_ph(_mm512_unpacklo_epi8(lowers, uppers));
  high = _mm512_castsi512_ph(_mm512_unpackhi_epi8(lowers, uppers));
}

// Two rows of 32 numbers as bfloat16, in pairs of one of each row: of the first 16 columns, and of the others. NaN is taken for 480. Bits of a
// normal number are those of two bytes (its exponent is 120 more, which is its uppermost bit and four times the inverse of that); a subnormal
// number is looked up.
BAO_INLINE void widen_to_bf16(__m512i rows, __m512i& first, __m512i& others) {
  constexpr static auto kOrder = byte_table<64>([](int i) { return i % 2 * 32 + i % 16 / 8 * 16 + i / 16 * 4 + i % 8 / 2; });
  const __m512i numbers = _mm512_permutexvar_epi8(kOrder.vector(), rows);
  const __mmask64 subnormal = _mm512_testn_epi8_mask(numbers, _mm512_set1_epi8(0x78));
  __m512i high = _mm512_gf2p8affine_epi64_epi8(numbers, _mm512_set1_epi64(0x1020404040404080), 0x3c);
  __m512i low = _mm512_gf2p8affine_epi64_epi8(numbers, _mm512_set1_epi64(0x0000000001020408), 0);
  high = _mm512_xor_si512(high, _mm512_maskz_permutexvar_epi8(subnormal, numbers, kSubnormalHighBytes.vector()));
  low = _mm512_mask_permutexvar_epi8(low, subnormal, numbers, kSubnormalLowBytes.vector());
  first = _mm512_unpacklo_epi8(low, high);
  others = _mm512_unpackhi_epi8(low, high);
}

// Whether there is NaN among the numbers seen. One more changes the sign of these bytes alone.
class NanWatch {
 public:
  BAO_INLINE_MEMBER void see(__m512i numbers) {
    const __m512i next = _mm512_add_epi8(numbers, _mm512_set1_epi8(1));
    // changes | (numbers ^ next)
    changes_ = _mm512_ternarylogic_epi32(changes_, numbers, next, 0xf6);
  }
  BAO_INLINE_MEMBER bool seen() const { return _mm512_movepi8_mask(changes_) != 0; }

 private:
  __m512i changes_ = _mm512_setzero_si512();
};
#endif

// NV vectors of a weight's numbers over kWeightDivisor, whichever costs least. NaN may be taken for a number: the scale of a group that has
// one is NaN itself. (So halves cost less here than for the cache, and lookups without VBMI more than they.)
#if defined(__AVX512VBMI__)
constexpr float kWeightDivisor = 1.0f;
template <int NV>
BAO_INLINE void load_weights(const Float8E4M3* p, F* out) {
  load_vectors<NV>(p, kLanes, out);
}
#else
constexpr float kWeightDivisor = 256.0f;
template <int NV>
BAO_INLINE void load_weights(const Float8E4M3* p, F* out) {
  BAO_UNROLL
  for (int v = 0; v < NV; v++) out[v] = load_over_256(p + v * kLanes);
}
#endif

// Rounds to nearest, ties to even, and what is beyond the greatest number to that; NaN stays NaN.
BAO_INLINE void store(Float8E4M3* p, F v) {
  const U bits = as_bits(v);
  const F magnitude = min(as_float(bits & 0x7fffffffu), set1(448.0f));
  // Subnormals are multiples of 2^-9: adding 2^14 leaves their number in the low bits, rounded by the addition itself.
  const U small = as_bits(magnitude + 0x1p14f) - 0x46800000u;
  const U normal = (as_bits(magnitude) + 0x7ffffu + (as_bits(magnitude) >> 20 & 1u) - 0x3c000000u) >> 20;
  const U nan = reinterpret_cast<U>(v != v);
  const U is_small = reinterpret_cast<U>(magnitude < 0x1p-6f);
  const U number = (is_small & small) | (~is_small & normal);
  const U result = (bits >> 24 & 0x80u) | (nan & 0x7fu) | (~nan & number);
  const B bytes = __builtin_convertvector(result, B);
  std::memcpy(p, &bytes, sizeof(B));
}

// As with_dtype, with the types of the KV cache.
template <class Fn>
BAO_INLINE void with_cache_dtype(int32_t dtype, Fn f) {
  if (dtype == kFp8E4M3) {
    f(static_cast<Float8E4M3*>(nullptr));
  } else {
    with_dtype(dtype, f);
  }
}

}  // namespace bao::BAO_ISA
