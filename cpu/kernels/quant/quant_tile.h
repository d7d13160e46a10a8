// Register tiles of products with quantized weights: R rows of x by NP panels, over words of k.
#pragma once

#include "../panel_stream.h"
#include "quant_activations.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512VNNI__)
constexpr int kTileRows = 8, kAccumulators = 24;
#elif defined(__AVX512F__)
constexpr int kTileRows = 8, kAccumulators = 16;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kAccumulators = 8;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 4, kAccumulators = 16;
#else
constexpr int kTileRows = 2, kAccumulators = 8;
#endif
constexpr int kPanelVectors = kQuantPanelColumns / kLanes;
// Of so few rows reading takes the time.
constexpr int kReadingRows = 4;
// Bytes of a word, or a group's scales, of all columns of a panel: a step of a tile.
constexpr int64_t kStepBytes = kQuantPanelColumns * 4;

// Panels that so many rows are multiplied with at once, at most.
static constexpr int64_t tile_panels(int64_t rows) { return panels_at_once(kAccumulators, rows * kPanelVectors); }

BAO_INLINE U splat(uint32_t x) { return x - U{}; }

template <int Bits>
BAO_INLINE U piece_of(U word, int piece) {
  if constexpr (kBytes<Bits>) {
    return Bits == 8 ? word : word >> (piece * 4) & splat(0x0f0f0f0fu);
  } else {
    return word >> (piece * Bits) & splat(Bits == 8 ? 0x00ff00ffu : 0x000f000fu);
  }
}

// Sums of products of 16-bit pairs.
BAO_INLINE I multiply_pairs(U a, U b) {
#if defined(__AVX512F__)
  return reinterpret_cast<I>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<I>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return reinterpret_cast<I>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  const I low = (reinterpret_cast<I>(a << 16) >> 16) * (reinterpret_cast<I>(b << 16) >> 16);
  return low + (reinterpret_cast<I>(a) >> 16) * (reinterpret_cast<I>(b) >> 16);
#endif
}

// total += the products of one piece. Where kShort, total has 16-bit halves, which hold kShortWords words of weights.
#if defined(__AVX2__) && !defined(__AVX512F__)
template <int Bits>
constexpr bool kShort = Bits == 4;
#else
template <int Bits>
constexpr bool kShort = false;
#endif
// Each word adds twice at most 2 * 15 * 127 to a half.
constexpr int64_t kShortWords = 4;

template <int Bits>
BAO_INLINE void multiply_piece(I& total, U weights, U x) {
#if defined(__AVX512VNNI__)
  total = reinterpret_cast<I>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(total), reinterpret_cast<__m512i>(weights),
                                                  reinterpret_cast<__m512i>(x)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
  // Written out for the reason that `accumulate` gives (simd.h).
  U products;
  if constexpr (kShort<Bits>) {
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(total), "=&x"(products) : "x"(weights), "x"(x));
  } else {
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(total), "=&x"(products) : "x"(weights), "x"(x));
  }
#else
  total += multiply_pairs(weights, x);
#endif
}

// Quantized rows of x, at the first group of a block of k.
struct Rows {
  const char* words;
  const char* scales;
  const char* sums;
  int64_t stride;
};

struct Output {
  float* c;
  int64_t ld;
  // For the last block of k, else nullptr.
  const float* bias;
  // Columns that exist.
  int64_t columns;
  // The first block of k starts from 0, the others from what is in c.
  bool first;

  Output columns_from(int64_t column) const { return {c + column, ld, bias ? bias + column : nullptr, columns - column, first}; }
};

template <class T>
BAO_INLINE T read(const char* p, int64_t index) {
  T value;
  std::memcpy(&value, p + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// One row alone is too few chains of products to hide their latency: each piece of a word gets sums of its own. Those of the upper
// halves of bytes then stay 16 times too large until the group's end, which saves a shift for each word.
template <int Bits, int R>
constexpr int kChains = R == 1 && kBytes<Bits> && !kShort<Bits> ? kPieces<Bits> : 1;

// The integer products of R rows with `count` words of NP panels.
template <int Bits, int R, int NP, int Chains, class Ahead>
BAO_INLINE void multiply_words(I (&total)[Chains][R][NP * kPanelVectors], const char* x, int64_t stride, Places<char, NP>& w, int64_t count,
                               Ahead& ahead) {
  constexpr int NV = NP * kPanelVectors;
  for (int64_t i = 0; i < count; i++) {
    U word[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) word[v] = load_bits<U>(w[v / kPanelVectors] + v % kPanelVectors * kLanes * 4);
    ahead.template step<1>();
    BAO_UNROLL
    for (int piece = 0; piece < kPieces<Bits>; piece++) {
      U numbers[NV];
      BAO_UNROLL
      for (int v = 0; v < NV; v++) numbers[v] = Chains > 1 ? word[v] & splat(0x0f0f0f0fu << piece * 4) : piece_of<Bits>(word[v], piece);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const U activations = splat(read<uint32_t>(x + r * stride, piece));
        BAO_UNROLL
        for (int v = 0; v < NV; v++) multiply_piece<Bits>(total[piece % Chains][r][v], numbers[v], activations);
      }
    }
    x += kPieces<Bits> * 4;
    w.advance(kStepBytes);
  }
}

// total += the products of one group, whose words are steps `done` and following of a tile.
template <int Bits, int R, int NP, class Ahead>
BAO_INLINE void multiply_group(I (&total)[1][R][NP * kPanelVectors], const char* x, int64_t stride, Places<char, NP>& w, int64_t count,
                               Ahead& ahead, int64_t done) {
  constexpr int NV = NP * kPanelVectors;
  constexpr int64_t kStep = kShort<Bits> ? kShortWords : kGroupWords<Bits>;
  for (int64_t i = 0; i < count;) {
    const int64_t end = min(min(count, i + kStep), ahead.until(done + i) - done);
    const char* words = x + i * kPieces<Bits> * 4;
    if constexpr (kChains<Bits, R> == 1 && !kShort<Bits>) {
      multiply_words<Bits, R, NP>(total, words, stride, w, end - i, ahead);
    } else {
      I part[kChains<Bits, R>][R][NV] = {};
      multiply_words<Bits, R, NP>(part, words, stride, w, end - i, ahead);
      BAO_UNROLL
      for (int chain = 0; chain < kChains<Bits, R>; chain++) {
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          BAO_UNROLL
          for (int v = 0; v < NV; v++) {
            const I sum = part[chain][r][v] >> chain * 4;
            total[0][r][v] += kShort<Bits> ? multiply_pairs(reinterpret_cast<U>(sum), splat(0x00010001u)) : sum;
          }
        }
      }
    }
    i = end;
  }
}

BAO_INLINE F load_columns(const float* p, int64_t columns) { return columns >= kLanes ? load(p) : load_n(p, max(columns, 0)); }
BAO_INLINE void store_columns(float* p, F v, int64_t columns) {
  if (columns >= kLanes) {
    store(p, v);
  } else {
    store_n(p, v, max(columns, 0));
  }
}

// c[R][NP panels] (+)= rows · `words` words of the panels, from a group's scales on.
template <int Bits, int R, int NP, class Source>
static __attribute__((noinline)) void tile(const Rows& rows, const Panels& panels, int64_t words, const Source& source, const Output& out) {
  constexpr int NV = NP * kPanelVectors;
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      acc[r][v] = out.first ? F{} : load_columns(out.c + r * out.ld + v * kLanes, out.columns - v * kLanes);
    }
  }
  const char* x = rows.words;
  Places<char, NP> w(panels.data, panels.stride);
  auto ahead = ahead_of<NP, kStepBytes, R <= kReadingRows>(source, panels, words + ceil_div(words, kGroupWords<Bits>));
  int64_t done = 0;
  for (int64_t group = 0; words > 0; group++) {
    const int64_t count = min(words, kGroupWords<Bits>);
    U scales[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) scales[v] = load_bits<U>(w[v / kPanelVectors] + v % kPanelVectors * kLanes * 4);
    ahead.until(done);
    ahead.template step<1>();
    w.advance(kStepBytes);
    // What the numbers' zero adds to a sum is taken off: of 8-bit numbers, all of which have the same, before it begins.
    I total[1][R][NV];
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const I start = Bits == 8 ? set1(read<int32_t>(rows.sums + r * rows.stride, group)) : I{};
      BAO_UNROLL
      for (int v = 0; v < NV; v++) total[0][r][v] = start;
    }
    multiply_group<Bits, R, NP>(total, x, rows.stride, w, count, ahead, done + 1);
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      const F scale = as_float(scales[v] & splat(0xffff0000u));
      const U zero = scales[v] & splat(0xffffu);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const F row_scale = set1(read<float>(rows.scales + r * rows.stride, group));
        I sum = total[0][r][v];
        if constexpr (Bits == 4) {
          // Both fit 16 bits, and zero's upper half is 0.
          sum -= multiply_pairs(zero, reinterpret_cast<U>(set1(read<int32_t>(rows.sums + r * rows.stride, group))));
        }
        acc[r][v] = acc[r][v] + __builtin_convertvector(sum, F) * (scale * row_scale);
      }
    }
    x += count * kPieces<Bits> * 4;
    words -= count;
    done += count + 1;
  }
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
    const int64_t columns = out.columns - v * kLanes;
    const F bias = out.bias ? load_columns(out.bias + v * kLanes, columns) : F{};
    BAO_UNROLL
    for (int r = 0; r < R; r++) store_columns(out.c + r * out.ld + v * kLanes, acc[r][v] + bias, columns);
  }
}

// The same by `count` <= R rows for any number of panels.
template <int Bits, int R, class Source>
static void panel_rows(int64_t count, const Rows& rows, const Panels& w, int64_t words, const Source& source, const Output& out) {
  if constexpr (R > 1) {
    if (count < R) return panel_rows<Bits, R - 1>(count, rows, w, words, source, out);
  }
  for_each_tile<R, tile_panels(R)>(w, source, [&](auto panels, int64_t first, const auto& own) {
    tile<Bits, R, panels()>(rows, w.from(first), words, own, out.columns_from(first * kQuantPanelColumns));
  });
}

}  // namespace
}  // namespace bao::BAO_ISA
