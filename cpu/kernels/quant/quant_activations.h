// Rows of activations as integers, laid out for this instruction set's products.
#pragma once

#include "quant_group.h"

namespace bao::BAO_ISA {
namespace {

// A word of weights is multiplied in pieces, each with one word of activations:
//   bytes: 4 numbers with 4 int8 (VPDPBUSD; VPMADDUBSW for 4-bit numbers, whose sums stay within 16 bits for a while)
//   pairs: 2 numbers, of 16 bits each, with 2 int16 (PMADDWD)
#if defined(__AVX512VNNI__)
template <int Bits>
constexpr bool kBytes = true;
#elif defined(__AVX2__) && !defined(__AVX512F__)
template <int Bits>
constexpr bool kBytes = Bits == 4;
#else
template <int Bits>
constexpr bool kBytes = false;
#endif
template <int Bits>
constexpr int kPieces = (kBytes<Bits> ? 8 : 16) / Bits;

// A row of activations: its words, kPieces for each word of weights, up to whole groups, and for each group the scale and what its integers
// give for the zero of weights: for 8 bits, which have theirs at kByteZero, -kByteZero times their sum, for 4 bits the sum.
template <int Bits>
struct RowLayout {
  explicit RowLayout(int64_t k)
      : words(ceil_div(k, quant_word(Bits))),
        groups(ceil_div(k, quant_group(Bits))),
        scales(groups * kGroupWords<Bits> * kPieces<Bits> * 4),
        sums(scales + groups * 4),
        stride(round_up(sums + groups * 4, 64)) {}
  // Words and groups of weights in a column.
  int64_t words, groups;
  // Bytes from the row's begin, and between rows.
  int64_t scales, sums, stride;
};

// A group's integers in the order of the pieces: `words` words' worth.
template <int Bits>
BAO_INLINE void write_activations(const I (&q)[quant_group(Bits) / kLanes], int64_t words, char* out) {
  if constexpr (kBytes<Bits>) {
    if (words == kGroupWords<Bits>) {
      BAO_UNROLL
      for (int64_t i = 0; i < quant_group(Bits) / kLanes; i++) store_bytes(out + i * kLanes, q[i]);
      return;
    }
    char bytes[quant_group(Bits)];
    BAO_UNROLL
    for (int64_t i = 0; i < quant_group(Bits) / kLanes; i++) store_bytes(bytes + i * kLanes, q[i]);
    std::memcpy(out, bytes, static_cast<size_t>(words) * kPieces<Bits> * 4);
  } else {
    int32_t numbers[quant_group(Bits)];
    std::memcpy(numbers, q, sizeof(q));
    for (int64_t w = 0; w < words; w++, out += kPieces<Bits> * 4) {
      int16_t pairs[kPieces<Bits> * 2];
      for (int piece = 0; piece < kPieces<Bits>; piece++) {
        // A 4-bit word's upper halves of bytes, the odd pieces, are its last four numbers.
        const int64_t first = w * quant_word(Bits) + (Bits == 8 ? piece : piece % 2 * 4 + piece / 2);
        pairs[piece * 2] = static_cast<int16_t>(numbers[first]);
        pairs[piece * 2 + 1] = static_cast<int16_t>(numbers[first + 2]);
      }
      std::memcpy(out, pairs, sizeof(pairs));
    }
  }
}

// A group's numbers as `words` words of integers at `out`, their scale and their sum.
template <int Bits>
BAO_INLINE void quantize_values(const F (&values)[quant_group(Bits) / kLanes], int64_t words, char* out, char* scale_out, char* sum_out) {
  constexpr int64_t kVectors = quant_group(Bits) / kLanes;
  // Magnitudes are in the order of their bits, those that are not finite last.
  I bits{};
  BAO_UNROLL
  for (int64_t i = 0; i < kVectors; i++) bits = max(bits, reinterpret_cast<I>(as_bits(values[i]) & 0x7fffffffu));
  const float greatest = bits_to_float(static_cast<uint32_t>(reduce_max(bits)));
  const bool finite = greatest < kInfinity;
  float scale = greatest / 127.0f;
  if (scale < kSmallestScale) scale = 0;
  const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
  if (!finite) scale = kNaN;
  I q[kVectors], sums{};
  BAO_UNROLL
  for (int64_t i = 0; i < kVectors; i++) {
    q[i] = finite ? round_to_int(values[i] * inverse) : I{};
    sums += q[i];
  }
  const int32_t sum = Bits == 8 ? reduce_add(sums) * -kByteZero : reduce_add(sums);
  write_activations<Bits>(q, words, out);
  std::memcpy(scale_out, &scale, 4);
  std::memcpy(sum_out, &sum, 4);
}

// Does before_group() before each group: what shall go on meanwhile.
template <int Bits, class BeforeGroup>
static void quantize_row(const float* x, int64_t k, char* out, BeforeGroup before_group) {
  constexpr int64_t kGroup = quant_group(Bits), kVectors = kGroup / kLanes;
  const RowLayout<Bits> layout(k);
  for (int64_t group = 0; group < layout.groups; group++) {
    before_group();
    const int64_t first = group * kGroup;
    const int64_t words = min(kGroupWords<Bits>, layout.words - group * kGroupWords<Bits>);
    F values[kVectors];
    if (k - first >= kGroup) {
      BAO_UNROLL
      for (int64_t i = 0; i < kVectors; i++) values[i] = load(x + first + i * kLanes);
    } else {
      for (int64_t i = 0; i < kVectors; i++) {
        const int64_t count = k - first - i * kLanes;
        values[i] = count >= kLanes ? load(x + first + i * kLanes) : load_n(x + first + i * kLanes, max(count, int64_t{0}));
      }
    }
    quantize_values<Bits>(values, words, out + group * kGroupWords<Bits> * kPieces<Bits> * 4, out + layout.scales + group * 4,
                          out + layout.sums + group * 4);
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
