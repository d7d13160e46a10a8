// Register tiles of attention over 8-bit floats as halves (AVX-512 FP16): an instruction multiplies 32 numbers where float32 has 16.
//
// A half has 11 bits, so that only few products are added as halves: those of kHalfSteps dimensions of a score, or of kHalfKeys keys of
// a value. The sums are then added as float32. Error and reasons: docs/decisions/0029-attention-in-halves.md.
#pragma once

#include "attention_tile.h"
#include "../halves.h"

#if defined(__AVX512FP16__)
namespace bao::BAO_ISA {
namespace {

// A number that has been widened. 64 of them lie in the order of widen_over_256.
struct WidenedE4M3 {
  uint16_t bits;
};

// A step of a score is four dimensions of 16 keys: 64 bytes of the cache.
constexpr int64_t kStepDims = 4;
static constexpr int64_t half_steps(int64_t head_dim) { return ceil_div(head_dim, kStepDims); }
// What is added as halves: the products of so many steps, or of so many keys from a multiple of it on. Numbers of the cache, over 256, are
// below 2, queries below 2^9 (kQueryExponent) and probabilities up to 2^10 (kProbabilityExponent), so that the sums stay below 2^16.
constexpr int64_t kHalfSteps = 32;
constexpr int64_t kHalfKeys = 32;
constexpr int kQueryExponent = 8;
constexpr int kProbabilityExponent = 10;

template <int R, int N>
BAO_INLINE void clear(Halves (&sums)[R][N][2]) {
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int n = 0; n < N; n++) sums[r][n][0] = sums[r][n][1] = _mm512_setzero_ph();
  }
}

// A step of keys whose dimensions are ld apart.
BAO_INLINE void load_step(const Float8E4M3* p, int64_t ld, Halves& low, Halves& high, NanWatch& nan) {
  const __m512i numbers = load_bytes<4>(p, ld);
  nan.see(numbers);
  widen_over_256(numbers, low, high);
}
BAO_INLINE void load_step(const WidenedE4M3* p, int64_t, Halves& low, Halves& high, NanWatch&) {
  low = load_bits<Halves>(p);
  high = load_bits<Halves>(p + 32);
}
// 64 columns of a value, of which the mask's 32-bit words are there.
BAO_INLINE __mmask16 value_words(int64_t columns) { return static_cast<__mmask16>((1u << min(16, columns / 4)) - 1); }
BAO_INLINE void load_value(const Float8E4M3* p, __mmask16 words, Halves& low, Halves& high, NanWatch& nan) {
  const __m512i numbers = _mm512_maskz_loadu_epi32(words, p);
  nan.see(numbers);
  widen_over_256(numbers, low, high);
}
BAO_INLINE void load_value(const WidenedE4M3* p, __mmask16, Halves& low, Halves& high, NanWatch& nan) { load_step(p, 0, low, high, nan); }

// The sums over four dimensions of 16 keys.
BAO_INLINE F sum_dims(Halves low, Halves high) {
  const F first = lower_half(low) + upper_half(low), second = lower_half(high) + upper_half(high);
  return _mm512_shuffle_f32x4(first, second, 0x44) + _mm512_shuffle_f32x4(first, second, 0xee);
}

// Groups of keys, or 64 columns of values, in a register tile of that many rows.
template <int R>
constexpr int half_tile_groups = R <= 2 ? 4 : R <= 5 ? 2 : 1;

// scores[R][G groups] = queries[R][steps] · keys, times each row's factor; true where a key's number is NaN, which counts as 480.
// Dense: ld_keys is kGroup, as in a block of one group; known beforehand, since the choice of a load costs registers.
template <int R, int G, bool Dense, bool Ahead, class K, class C>
static __attribute__((noinline)) bool half_score_tile(const Halves* queries, int64_t ld_queries, const float* factors, const K* const* keys,
                                                      int64_t ld_keys, int64_t steps, float* scores, const C* const* soon,
                                                      const C* const* later) {
  NanWatch nan;
  const K* at[G];
  BAO_UNROLL
  for (int g = 0; g < G; g++) at[g] = keys[g];
  if constexpr (Dense) ld_keys = kGroup;
  for (int64_t step = 0; step < steps;) {
    const bool is_first = step == 0;
    Halves acc[R][G][2];
    clear(acc);
    for (const int64_t end = min(step + kHalfSteps, steps); step < end; step++) {
      BAO_UNROLL
      for (int g = 0; g < G; g++) {
        if constexpr (Ahead) {
          prefetch_near(soon[g] + step * kStepDims * kGroup);
          prefetch_far(later[g] + step * kStepDims * kGroup);
        }
        Halves low, high;
        load_step(at[g] + step * kStepDims * ld_keys, ld_keys, low, high, nan);
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          const Halves query = queries[r * ld_queries + step];
          add_product(acc[r][g][0], low, query);
          add_product(acc[r][g][1], high, query);
        }
      }
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      BAO_UNROLL
      for (int g = 0; g < G; g++) {
        float* out = scores + r * kKeyTile + g * kGroup;
        const F sums = sum_dims(acc[r][g][0], acc[r][g][1]) * factors[r];
        store(out, is_first ? sums : load(out) + sums);
      }
    }
  }
  return nan.seen();
}

// Scores of R rows against the groups [begin, end).
template <int R, bool Ahead, class K, class C>
static bool half_score_groups(const Halves* queries, int64_t ld_queries, const float* factors, const Groups<K>& keys, int64_t ld_keys,
                              int64_t steps, int64_t begin, int64_t end, float* scores, const Coming<C>& coming) {
  bool nan = false;
  const auto add = [&](auto groups, auto dense) {
    constexpr int G = groups();
    for (; begin + G <= end; begin += G) {
      nan |= half_score_tile<R, G, dense(), Ahead>(queries, ld_queries, factors, keys.of + begin, ld_keys, steps, scores + begin * kGroup,
                                          coming.soon.of + begin, coming.later.of + begin);
    }
  };
  if (ld_keys == kGroup) add(std::integral_constant<int, half_tile_groups<R>>{}, std::true_type{});
  // Widened keys are always dense.
  add(std::integral_constant<int, 1>{}, std::is_same<K, WidenedE4M3>{});
  return nan;
}

// Adds a value's sums to as many of 64 columns as there are.
BAO_INLINE void add_columns(Halves low, Halves high, int64_t columns, float* out) {
  constexpr float kScale = 256.0f / (1 << kProbabilityExponent);
  const __m512i first = _mm512_castph_si512(low), second = _mm512_castph_si512(high);
  // 8 columns of one and 8 of the other in turn.
  const Halves ordered[2] = {
      _mm512_castsi512_ph(_mm512_permutex2var_epi64(first, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second)),
      _mm512_castsi512_ph(_mm512_permutex2var_epi64(first, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), second))};
  BAO_UNROLL
  for (int i = 0; i < 4; i++) {
    if (i * kLanes >= columns) break;
    const F added = i % 2 == 0 ? lower_half(ordered[i / 2]) : upper_half(ordered[i / 2]);
    store(out + i * kLanes, fma(added, set1(kScale), load(out + i * kLanes)));
  }
}

// out[R][NV times 64 columns, as far as there are] += probabilities[R][groups begin to end] · values, rows of which are ld apart; true where
// a value is NaN, which counts as 480. A float of a probability is two halves, both of them it.
template <int R, int NV, bool Ahead, class V, class C>
static __attribute__((noinline)) bool half_value_tile(const float* probabilities, const Groups<V>& values, int64_t ld, int64_t begin,
                                                      int64_t end, int64_t column, int64_t dim, float* out, const Coming<C>& coming) {
  const int64_t last_columns = dim - column - (NV - 1) * 64;
  const __mmask16 last_words = value_words(last_columns);
  NanWatch nan;
  while (begin < end) {
    Halves acc[R][NV][2];
    clear(acc);
    constexpr int64_t kRunGroups = kHalfKeys / kGroup;
    for (const int64_t stop = min(end, (begin / kRunGroups + 1) * kRunGroups); begin < stop; begin++) {
      const V* row = values.of[begin] + column;
      for (int64_t key = 0; key < kGroup; key++, row += ld) {
        BAO_UNROLL
        for (int v = 0; v < NV; v++) {
          if constexpr (Ahead) {
            const int64_t at = key * ld + column + v * 64;
            prefetch_near(coming.soon.of[begin] + at);
            prefetch_far(coming.later.of[begin] + at);
          }
          Halves low, high;
          load_value(row + v * 64, v < NV - 1 ? 0xffff : last_words, low, high, nan);
          BAO_UNROLL
          for (int r = 0; r < R; r++) {
            const F pair = set1(probabilities[r * kKeyTile + begin * kGroup + key]);
            const auto weight = load_bits<Halves>(&pair);
            add_product(acc[r][v][0], low, weight);
            add_product(acc[r][v][1], high, weight);
          }
        }
      }
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      BAO_UNROLL
      for (int v = 0; v < NV; v++) {
        add_columns(acc[r][v][0], acc[r][v][1], v < NV - 1 ? 64 : last_columns, out + r * dim + column + v * 64);
      }
    }
  }
  return nan.seen();
}

// All of the columns: tiles of NV times 64, then narrower ones.
template <int R, int NV, bool Ahead, class V, class C>
static bool half_value_columns(const float* probabilities, const Groups<V>& values, int64_t ld, int64_t begin, int64_t end, int64_t column,
                               int64_t dim, float* out, const Coming<C>& coming) {
  bool nan = false;
  for (; column + (NV - 1) * 64 < dim; column += NV * 64) {
    nan |= half_value_tile<R, NV, Ahead>(probabilities, values, ld, begin, end, column, dim, out, coming);
  }
  if constexpr (NV > 1) {
    if (column < dim) nan |= half_value_columns<R, NV / 2, Ahead>(probabilities, values, ld, begin, end, column, dim, out, coming);
  }
  return nan;
}

}  // namespace
}  // namespace bao::BAO_ISA
#endif
