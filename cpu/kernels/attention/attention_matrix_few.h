// The arithmetic of the matrix registers in vector registers, bit for bit: for so few rows that reading takes the time, numbers are multiplied
// where they lie. Of a step even and odd numbers are added by themselves, then both sums to the one before.
#pragma once

#include "attention_matrix_tile.h"

#if defined(__AMX_BF16__)
namespace bao::BAO_ISA {
namespace {

constexpr int kFewRows = 4;

// scores[R][G groups] = queries[R][head_dim] · keys; head_dim is even.
template <int R, int G, bool Dense>
static __attribute__((noinline)) void few_scores(const float* queries, int64_t ld, const BFloat16* const* keys, int64_t ld_keys, int64_t head_dim,
                                                 float* scores, int64_t ld_scores, const BFloat16* const* soon, const BFloat16* const* later) {
  if constexpr (Dense) ld_keys = kGroup;
  for (int64_t d = 0; d < head_dim;) {
    const bool fresh = d == 0;
    F even[R][G] = {}, odd[R][G] = {};
    for (const int64_t end = min(head_dim, d + kStep); d < end; d += 2) {
      F w[G][2];
      BAO_UNROLL
      for (int g = 0; g < G; g++) {
        prefetch_near(soon[g] + d * kGroup);
        prefetch_far(later[g] + d * kGroup);
        const BFloat16* pair = keys[g] + d * ld_keys;
        split(reinterpret_cast<U>(pair_halves(Dense ? load_bits<__m512i>(pair) : two_halves(pair, pair + ld_keys))), w[g][0], w[g][1]);
      }
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const F first = set1(queries[r * ld + d]), second = set1(queries[r * ld + d + 1]);
        BAO_UNROLL
        for (int g = 0; g < G; g++) {
          accumulate(even[r][g], w[g][0], first);
          accumulate(odd[r][g], w[g][1], second);
        }
      }
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      BAO_UNROLL
      for (int g = 0; g < G; g++) {
        float* out = scores + r * ld_scores + g * kGroup;
        store(out, (fresh ? F{} : load(out)) + (even[r][g] + odd[r][g]));
      }
    }
  }
}

template <int R>
static void few_scores(const float* queries, int64_t ld, const Tile<BFloat16>& tile, int64_t head_dim, float* scores, int64_t ld_scores,
                       const Coming<BFloat16>& coming) {
  constexpr int kTogether = R <= 2 ? 4 : 2;
  int64_t g = 0, end = kKeyTile / kGroup;
  while (g < end && !tile.keys.of[g]) g++;
  while (end > g && !tile.keys.of[end - 1]) end--;
  const auto some = [&](auto groups, auto dense) {
    for (; g + groups() <= end; g += groups()) {
      few_scores<R, groups(), dense()>(queries, ld, tile.keys.of + g, tile.ld_keys, head_dim, scores + g * kGroup, ld_scores, coming.soon.of + g,
                                       coming.later.of + g);
    }
  };
  if (tile.ld_keys == kGroup) {
    some(std::integral_constant<int, kTogether>{}, std::true_type{});
    some(std::integral_constant<int, 1>{}, std::true_type{});
  } else {
    some(std::integral_constant<int, 1>{}, std::false_type{});
  }
}

// out[R][NV vectors] = (fresh ? 0 : out) + probabilities · values of a step's keys from begin to end, which all rows see. Probabilities are those
// of a step as the matrix registers take them.
template <int R, int NV>
static __attribute__((noinline)) void few_values(const char* probabilities, const BFloat16* const* groups, int64_t dim, int64_t begin, int64_t end,
                                                 bool fresh, float* out, const BFloat16* const* soon, const BFloat16* const* later) {
  float weights[R][2][kLanes];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    F even, odd;
    split(load_bits<U>(probabilities + r * kMatrixRowBytes), even, odd);
    store(weights[r][0], even);
    store(weights[r][1], odd);
  }
  F acc[2][R][NV] = {};
  const auto add = [&](auto parity, int64_t key) __attribute__((always_inline)) {
    const int64_t g = key / kGroup, at = key % kGroup * dim;
    BAO_UNROLL
    for (int64_t i = 0; i < NV * kLanes; i += 32) {
      prefetch_near(soon[g] + at + i);
      prefetch_far(later[g] + at + i);
    }
    F w[NV];
    load_columns<NV>(groups[g] + at, w);
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F x = set1(weights[r][parity()][key / 2]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) accumulate(acc[parity()][r][v], w[v], x);
    }
  };
  constexpr std::integral_constant<int, 0> kEven{};
  constexpr std::integral_constant<int, 1> kOdd{};
  if (begin % 2 != 0 && begin < end) add(kOdd, begin++);
  for (; begin + 2 <= end; begin += 2) {
    add(kEven, begin);
    add(kOdd, begin + 1);
  }
  if (begin < end) add(kEven, begin);
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    F sums[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) sums[v] = acc[0][r][v] + acc[1][r][v];
    if constexpr (splits_pairs<BFloat16, NV>) {
      BAO_UNROLL
      for (int v = 0; v < NV; v += 2) join_pairs(sums[v], sums[v + 1]);
    }
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      float* to = out + r * dim + v * kLanes;
      store(to, (fresh ? F{} : load(to)) + sums[v]);
    }
  }
}

// All columns, NV vectors at once and then fewer; pointers are those of the first column.
template <int R, int NV>
static void few_columns(const char* probabilities, Groups<BFloat16> groups, int64_t dim, int64_t column, int64_t begin, int64_t end, bool fresh,
                        float* out, Coming<BFloat16> coming) {
  for (; column + NV * kLanes <= dim; column += NV * kLanes, out += NV * kLanes) {
    few_values<R, NV>(probabilities, groups.of, dim, begin, end, fresh, out, coming.soon.of, coming.later.of);
    for (int g = 0; g < kStep / kGroup; g++) {
      groups.of[g] += NV * kLanes;
      coming.soon.of[g] += NV * kLanes;
      coming.later.of[g] += NV * kLanes;
    }
  }
  if constexpr (NV > 1) {
    if (column < dim) few_columns<R, NV / 2>(probabilities, groups, dim, column, begin, end, fresh, out, coming);
  }
}

// The values of a tile's keys from begin to end.
template <int R>
static void few_values(const char* probabilities, const Tile<BFloat16>& tile, int64_t dim, int64_t begin, int64_t end, bool fresh, float* out,
                       const Coming<BFloat16>& coming) {
  constexpr int NV = R == 1 ? 8 : R <= 3 ? 4 : 2;
  for (int64_t step = begin / kStep; step * kStep < end; step++, fresh = false) {
    const auto of_step = [&](const Groups<BFloat16>& groups) {
      return Groups<BFloat16>{{groups.of[2 * step], groups.of[2 * step + 1]}};
    };
    const int64_t base = step * kStep;
    few_columns<R, NV>(probabilities + step * kMatrixBytes, of_step(tile.values), dim, 0, max(0, begin - base), min(kStep, end - base), fresh, out,
                       {of_step(coming.soon), of_step(coming.later)});
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
#endif
