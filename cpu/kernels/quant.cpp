// Products with quantized weights: out = x · Wᵀ + bias, both sides as integers.
//
// Activations are quantized in every batch, one row alone included: each row's group of k gets its own scale, so that a row's
// result is a function of that row only. Within a group sums are integers, exact in any order; groups are added in float32 in
// order, with a product and a sum that are never fused. So every instruction set gives the same bits.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512VNNI__)
constexpr int kTileRows = 12, kTileVectors = 2;
#elif defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileVectors = 2;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 4, kTileVectors = 4;
#else
constexpr int kTileRows = 3, kTileVectors = 2;
#endif
constexpr int kPanelVectors = kPanelColumns / kLanes;
// Depth of a block of k that all row tiles pass over; whole groups.
constexpr int64_t kDepth = 512;
// How far ahead of use memory is asked for where each weight is used once.
constexpr int64_t kPrefetchBytes = 4096;

// A word is 32 bits of a column: 4 or 8 consecutive k. It is multiplied in pieces, each of which takes one word of activations.
//   bytes: a piece has 4 numbers, multiplied with 4 int8 (VPDPBUSD, or VPMADDUBSW where sums of 4-bit numbers can't saturate)
//   pairs: a piece has 2 numbers, 16 bits each, multiplied with 2 int16 (PMADDWD)
#if defined(__AVX512VNNI__)
template <int Bits>
constexpr bool kBytes = true;
#elif defined(__AVX2__)
template <int Bits>
constexpr bool kBytes = Bits == 4;
#else
template <int Bits>
constexpr bool kBytes = false;
#endif
template <int Bits>
constexpr int kPieces = (kBytes<Bits> ? 8 : 16) / Bits;
template <int Bits>
constexpr int64_t kGroupWords = quant_group(Bits) / quant_word(Bits);

// Where a row's quantized activations lie: its words, and for each group the scale and the sum of its integers.
template <int Bits>
struct Layout {
  explicit Layout(int64_t k)
      : words(ceil_div(k, quant_word(Bits))),
        groups(ceil_div(k, quant_group(Bits))),
        scales(words * kPieces<Bits> * 4),
        sums(scales + groups * 4),
        stride(round_up(sums + groups * 4, 64)) {}
  int64_t words, groups;
  // Bytes from the row's begin.
  int64_t scales, sums;
  int64_t stride;
};

template <int Bits>
BAO_INLINE U piece_of(U word, int piece) {
  if constexpr (kBytes<Bits>) {
    return Bits == 8 ? word : word >> (piece * 4) & 0x0f0f0f0fu;
  } else {
    return word >> (piece * Bits) & (Bits == 8 ? 0x00ff00ffu : 0x000f000fu);
  }
}

// Sums of products of unsigned and signed 16-bit pairs.
BAO_INLINE I multiply_pairs(U weights, U x) {
#if defined(__AVX512F__)
  return reinterpret_cast<I>(_mm512_madd_epi16(reinterpret_cast<__m512i>(weights), reinterpret_cast<__m512i>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<I>(_mm256_madd_epi16(reinterpret_cast<__m256i>(weights), reinterpret_cast<__m256i>(x)));
#elif defined(__SSE2__)
  return reinterpret_cast<I>(_mm_madd_epi16(reinterpret_cast<__m128i>(weights), reinterpret_cast<__m128i>(x)));
#else
  const I low = reinterpret_cast<I>(weights & 0xffffu) * (reinterpret_cast<I>(x << 16) >> 16);
  return low + reinterpret_cast<I>(weights >> 16) * (reinterpret_cast<I>(x) >> 16);
#endif
}

// Running integer sums of one group, by column.
template <int Bits>
struct Sum {
  I total{};
  BAO_INLINE void add(Sum& s, U weights, U x) {
#if defined(__AVX512VNNI__)
    s.total = reinterpret_cast<I>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(s.total), reinterpret_cast<__m512i>(weights),
                                                      reinterpret_cast<__m512i>(x)));
#else
    s.total += multiply_pairs(weights, x);
#endif
  }
};

}  // namespace
}  // namespace bao::BAO_ISA
