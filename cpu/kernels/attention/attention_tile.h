// Register tiles of attention: scores of some rows of queries against keys, and sums of values weighted by probabilities.
#pragma once

#include "../float8.h"
#include "../prefetch.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kAccumulators = 12;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6, kAccumulators = 24;
#else
constexpr int kTileRows = 3, kAccumulators = 12;
#endif
// Keys that always lie together in one block when the block size is a multiple of it.
constexpr int64_t kGroup = 16;
constexpr int kGroupVectors = kGroup / kLanes;

// Vectors of columns (keys of scores, dimensions of values) in a register tile of that many rows: few rows take many, so that
// enough independent chains hide the latency of a multiply-add.
template <int R>
constexpr int tile_vectors = R * 8 <= kAccumulators ? 8 : R * 4 <= kAccumulators ? 4 : 2;

// NV vectors of consecutive columns. Bfloat16 is taken apart in pairs of vectors, even columns and odd ones, which costs one
// instruction each; storing puts them together again.
template <class T, int NV>
constexpr bool splits_pairs = std::is_same_v<T, BFloat16> && NV % 2 == 0;

template <int NV, class T>
BAO_INLINE void load_columns(const T* p, F* w) {
  if constexpr (splits_pairs<T, NV>) {
    BAO_UNROLL
    for (int v = 0; v < NV; v += 2) {
      const U raw = load_bits<U>(p + v * kLanes);
      w[v] = as_float(raw << 16);
      w[v + 1] = as_float(raw & 0xffff0000u);
    }
  } else {
    load_vectors<NV>(p, kLanes, w);
  }
}
// The same columns of float32, in the order that load_columns<NV, T> gives.
template <int NV, class T>
BAO_INLINE void load_accumulators(const float* p, F* acc) {
  BAO_UNROLL
  for (int v = 0; v < NV; v++) acc[v] = load(p + v * kLanes);
  if constexpr (splits_pairs<T, NV>) {
    BAO_UNROLL
    for (int v = 0; v < NV; v += 2) split_pairs(acc[v], acc[v + 1]);
  }
}
template <int NV, class T>
BAO_INLINE void store_accumulators(float* p, F* acc) {
  if constexpr (splits_pairs<T, NV>) {
    BAO_UNROLL
    for (int v = 0; v < NV; v += 2) join_pairs(acc[v], acc[v + 1]);
  }
  BAO_UNROLL
  for (int v = 0; v < NV; v++) store(p + v * kLanes, acc[v]);
}

// Vectors that are widened together, as few registers are left beside the accumulators: 8-bit floats in fours, others one by one.
template <class T>
constexpr int kWidened = std::is_same_v<T, Float8E4M3> && kLanes == kGroup ? 4 : 1;

// The keys of a group in D dimensions, which are ld apart.
template <int D, class T>
BAO_INLINE void load_dims(const T* p, int64_t ld, F* w) {
  if constexpr (D > 1) {
    load_vectors<D>(p, ld, w);
  } else {
    load_columns<kGroupVectors>(p, w);
  }
}

// Keys or values of one tile of keys, a pointer for each group of kGroup keys.
template <class T>
struct Groups {
  const T* of[kKeyTile / kGroup];
};

// A tile of keys in its blocks, or copied from them. Groups that none of it is seen of are nullptr.
template <class T>
struct Tile {
  // Keys are [head_dim][ld_keys] from a group's column on, values [padded_head_dim] each from its row on.
  Groups<T> keys, values;
  int64_t ld_keys;
  // As much of the block's keys as is the group's share, in one stretch.
  Groups<T> key_areas;
};

// The keys [begin, end) of a range that starts at `base`, in tiles from its start on, and the first two areas of what is read afterwards.
constexpr int64_t kRangeTiles = kKeyRange / kKeyTile;
template <class T>
struct RangeTiles {
  int64_t base, begin, end;
  Tile<T> of[kRangeTiles];
  Groups<T> next[2];

  int64_t first_tile() const { return (begin - base) / kKeyTile; }
  int64_t end_tile() const { return ceil_div(end - base, kKeyTile); }
};

// The keys [first, last) of a tile.
struct KeySpan {
  int64_t tile, first, last;

  bool has(int64_t key) const { return key >= first - tile && key < last - tile; }
  int64_t group_begin() const { return (first - tile) / kGroup; }
  int64_t group_end() const { return ceil_div(last - tile, kGroup); }
};

// What is asked for while a tile's keys or values are multiplied: a stretch of memory for each group, kGroup elements for each
// dimension. `soon` is multiplied next and goes into the first-level cache, `later` comes from memory into the second.
template <class T>
struct Coming {
  Groups<T> soon, later;
};

// acc[R][NV vectors of keys] += queries[R][D dimensions from d on] · keys.
template <int D, int R, int NV, class T>
BAO_INLINE void score_dims(F (&acc)[R][NV], const float* queries, int64_t ld, const T* const* keys, int64_t ld_keys, int64_t d) {
  constexpr int kGroups = NV / kGroupVectors, kTogether = D > 1 ? 1 : kGroups;
  BAO_UNROLL
  for (int first = 0; first < kGroups; first += kTogether) {
    F w[kTogether][D * kGroupVectors];
    BAO_UNROLL
    for (int g = 0; g < kTogether; g++) load_dims<D>(keys[first + g] + d * ld_keys, ld_keys, w[g]);
    BAO_UNROLL
    for (int i = 0; i < D; i++) {
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const F x = set1(queries[r * ld + d + i]);
        BAO_UNROLL
        for (int v = 0; v < kTogether * kGroupVectors; v++) {
          accumulate(acc[r][first * kGroupVectors + v], w[v / kGroupVectors][i * kGroupVectors + v % kGroupVectors], x);
        }
      }
    }
  }
}

// scores[R][NV vectors of keys] = queries[R][dim] · keys; a group's keys are vectors, ld_keys apart. Each score is one chain over
// dim.
template <int R, int NV, class T>
static __attribute__((noinline)) void score_tile(const float* queries, int64_t ld, const T* const* keys, int64_t ld_keys,
                                                 int64_t dim, float* scores, const T* const* soon, const T* const* later) {
  constexpr int kLineDims = static_cast<int>(max(64 / (kGroup * static_cast<int64_t>(sizeof(T))), int64_t{1}));
  constexpr int kGroups = NV / kGroupVectors;
  F acc[R][NV] = {};
  const T* at[kGroups];
  BAO_UNROLL
  for (int g = 0; g < kGroups; g++) at[g] = keys[g];
  const auto step = [&](auto dims, int64_t d) __attribute__((always_inline)) {
    BAO_UNROLL
    for (int g = 0; g < kGroups; g++) {
      if (dims() == kLineDims || d % kLineDims == 0) prefetch_near(soon[g] + d * kGroup);
      if (dims() == kLineDims || d % kLineDims == kLineDims / 2) prefetch_far(later[g] + d * kGroup);
    }
    score_dims<dims()>(acc, queries, ld, at, ld_keys, d);
  };
  int64_t d = 0;
  for (; d + kWidened<T> <= dim; d += kWidened<T>) step(std::integral_constant<int, kWidened<T>>{}, d);
  if constexpr (kWidened<T> > 1) {
    for (; d < dim; d++) step(std::integral_constant<int, 1>{}, d);
  }
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int g = 0; g < kGroups; g++) {
      store_accumulators<kGroupVectors, T>(scores + r * kKeyTile + g * kGroup, acc[r] + g * kGroupVectors);
    }
  }
}

// Scores of R rows against the groups [begin, end).
template <int R, class T>
static void score_groups(const float* queries, int64_t ld, const Groups<T>& keys, int64_t ld_keys, int64_t dim, int64_t begin,
                         int64_t end, float* scores, const Coming<T>& coming) {
  constexpr int NV = tile_vectors<R> < kKeyTile / kLanes ? tile_vectors<R> : kKeyTile / kLanes;
  constexpr int kGroups = NV / kGroupVectors;
  int64_t g = begin;
  for (; g + kGroups <= end; g += kGroups) {
    score_tile<R, NV>(queries, ld, keys.of + g, ld_keys, dim, scores + g * kGroup, coming.soon.of + g, coming.later.of + g);
  }
  for (; g < end; g++) {
    score_tile<R, kGroupVectors>(queries, ld, keys.of + g, ld_keys, dim, scores + g * kGroup, coming.soon.of + g,
                                        coming.later.of + g);
  }
}

// out[R][NV vectors of dimensions] += probabilities[R][keys begin to end of a tile] · values, rows of which are ld apart; each
// output is one chain over the keys.
template <int R, int NV, class T>
static __attribute__((noinline)) void value_tile(const float* probabilities, const Groups<T>& values, int64_t ld, int64_t begin,
                                                 int64_t end, int64_t column, float* out, const Coming<T>& coming) {
  constexpr int kTogether = kWidened<T> > 1 && kWidened<T> < NV ? kWidened<T> : NV;
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) load_accumulators<NV, T>(out + r * ld + column, acc[r]);
  while (begin < end) {
    const int64_t group = begin / kGroup, stop = min(end, (group + 1) * kGroup);
    const T* row = values.of[group] + begin % kGroup * ld + column;
    for (; begin < stop; begin++, row += ld) {
      const int64_t at = begin % kGroup * ld + column;
      BAO_UNROLL
      for (int64_t i = 0; i < NV * kLanes; i += 64 / static_cast<int64_t>(sizeof(T))) {
        prefetch_near(coming.soon.of[group] + at + i);
        prefetch_far(coming.later.of[group] + at + i);
      }
      BAO_UNROLL
      for (int first = 0; first < NV; first += kTogether) {
        F w[kTogether];
        load_columns<kTogether>(row + first * kLanes, w);
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          const F x = set1(probabilities[r * kKeyTile + begin]);
          BAO_UNROLL
          for (int v = 0; v < kTogether; v++) accumulate(acc[r][first + v], w[v], x);
        }
      }
    }
  }
  BAO_UNROLL
  for (int r = 0; r < R; r++) store_accumulators<NV, T>(out + r * ld + column, acc[r]);
}

// All of the columns, tiles of NV vectors first, then narrower ones.
template <int R, int NV, class T>
static void value_columns(const float* probabilities, const Groups<T>& values, int64_t ld, int64_t begin, int64_t end,
                          int64_t column, float* out, const Coming<T>& coming) {
  for (; column + NV * kLanes <= ld; column += NV * kLanes) {
    value_tile<R, NV>(probabilities, values, ld, begin, end, column, out, coming);
  }
  if constexpr (NV > kGroupVectors) {
    if (column < ld) {
      value_columns<R, NV / 2>(probabilities, values, ld, begin, end, column, out, coming);
    }
  }
}

// Calls f with min(rows, R) as a constant.
template <int R, class Fn>
BAO_INLINE void with_rows(int64_t rows, Fn f) {
  if constexpr (R > 1) {
    if (rows < R) return with_rows<R - 1>(rows, f);
  }
  f(std::integral_constant<int, R>{});
}

}  // namespace
}  // namespace bao::BAO_ISA
