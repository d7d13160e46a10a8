// Register tiles of attention for many rows, over a tile of keys that has been widened once for all of them.
//
// Keys are [panels][head_dim][kPanel], values of a panel [kKeyTile][columns of the panel]: what a register tile reads lies in one stretch.
#pragma once

#include "attention_softmax.h"
#include "attention_tile.h"

namespace bao::BAO_ISA {
namespace {

// 12 rows by 2 vectors take 14 loads for 24 products, 6 by 4 take 10: the faster, the more the core's other thread loads.
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kStagedRows = 6, kPanelVectors = 4;
#elif defined(__AVX2__)
constexpr int kStagedRows = 6, kPanelVectors = 2;
#else
constexpr int kStagedRows = 3, kPanelVectors = 4;
#endif
// Keys of a panel, or columns of values.
constexpr int kPanel = kPanelVectors * kLanes;
static_assert(kPanel % kGroup == 0);

// Rows of a tile of values: many where its columns are few.
template <int NV>
constexpr int staged_rows = NV * 2 > kPanelVectors ? kStagedRows : 2 * kStagedRows;

// scores[R][NV vectors of keys] = queries[R][dim] · keys[dim][kPanel].
template <int R, int NV>
static __attribute__((noinline)) void staged_score_tile(const float* queries, int64_t ld, const float* keys, int64_t dim,
                                                        float* scores) {
  F acc[R][NV] = {};
  for (int64_t d = 0; d < dim; d++, keys += kPanel) {
    F w[NV];
    load_vectors<NV>(keys, kLanes, w);
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F x = set1(queries[r * ld + d]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) accumulate(acc[r][v], w[v], x);
    }
  }
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) store(scores + r * kKeyTile + v * kLanes, acc[r][v]);
  }
}

// out[R][NV vectors] = keep * out + probabilities[R][kKeyTile] · values[kKeyTile][NV vectors]. A row takes only the keys that it sees:
// another's value may be infinite, and 0 times that is no number.
template <int R, int NV>
static __attribute__((noinline)) void staged_value_tile(const float* probabilities, const RowSpans& spans, const float* keep,
                                                        const float* values, float* out, int64_t ld) {
  const int32_t *begins = spans.begin, *ends = spans.end;
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    const F kept = set1(keep[r]);
    BAO_UNROLL
    for (int v = 0; v < NV; v++) acc[r][v] = load(out + r * ld + v * kLanes) * kept;
  }
  const auto add = [&](int64_t first, int64_t past, auto by_all) __attribute__((always_inline)) {
    for (int64_t key = first; key < past; key++) {
      F w[NV];
      load_vectors<NV>(values + key * NV * kLanes, kLanes, w);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        if (!by_all() && (key < begins[r] || key >= ends[r])) continue;
        const F x = set1(probabilities[r * kKeyTile + key]);
        BAO_UNROLL
        for (int v = 0; v < NV; v++) accumulate(acc[r][v], w[v], x);
      }
    }
  };
  // What all rows see lies from the last one's begin to the first one's end.
  const int64_t begin = begins[R - 1], end = max(begin, ends[0]), last = ends[R - 1];
  add(begins[0], min(begin, last), std::false_type{});
  add(begin, end, std::true_type{});
  add(end, last, std::false_type{});
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) store(out + r * ld + v * kLanes, acc[r][v]);
  }
}

// Calls f with that number of vectors, whole groups and no more than a panel, as a constant.
template <int NV = kPanelVectors, class Fn>
BAO_INLINE void with_vectors(int64_t vectors, Fn f) {
  if constexpr (NV > kGroupVectors) {
    if (vectors < NV) return with_vectors<NV - kGroupVectors>(vectors, f);
  }
  f(std::integral_constant<int, NV>{});
}

// A tile of keys as floats, then, in their place, a panel of its values after another.
template <class T>
class StagedTile {
 public:
  StagedTile(int64_t head_dim, Scratch& scratch)
      : head_dim_(head_dim), dim_(padded_head_dim(head_dim)), numbers_(scratch.take<float>(kKeyTile * dim_)) {}

  // Of the groups from begin to end.
  void widen_keys(const Tile<T>& tile, int64_t begin, int64_t end) {
    for (int64_t key = begin * kGroup; key < end * kGroup; key += kLanes) {
      widen_vectors(tile.keys.of[key / kGroup] + key % kGroup, tile.ld_keys, head_dim_, keys_from(key), kPanel);
    }
  }
  // A row's scores of the groups that it sees, and of others.
  void score(const float* queries, int64_t rows, const RowSpans& spans, float* scores) const {
    for (int64_t row = 0; row < rows; row += kStagedRows) {
      with_rows<kStagedRows>(rows - row, [&](auto count) {
        const int64_t end = round_up(spans.end[row + count() - 1], kGroup);
        for (int64_t key = spans.begin[row] / kGroup * kGroup; key < end;) {
          const int64_t keys = min(kPanel - key % kPanel, end - key);
          with_vectors(keys / kLanes, [&](auto vectors) {
            staged_score_tile<count(), vectors()>(queries + row * dim_, dim_, keys_from(key), head_dim_, scores + row * kKeyTile + key);
          });
          key += keys;
        }
      });
    }
  }

  // out[rows][padded_head_dim] = keep * out + probabilities · values of the groups from begin to end.
  void add_values(const Tile<T>& tile, int64_t begin, int64_t end, const float* probabilities, int64_t rows, const RowSpans& spans,
                  const float* keep, float* out) {
    for (int64_t column = 0; column < dim_; column += kPanel) {
      const int64_t columns = min(kPanel, dim_ - column);
      for (int64_t key = begin * kGroup; key < end * kGroup; key++) {
        const T* value = tile.values.of[key / kGroup] + key % kGroup * dim_;
        widen_vectors(value + column, kLanes, columns / kLanes, numbers_ + key * columns, kLanes);
      }
      with_vectors(columns / kLanes, [&](auto vectors) {
        constexpr int R = staged_rows<vectors()>;
        for (int64_t row = 0; row < rows; row += R) {
          with_rows<R>(rows - row, [&](auto count) {
            if (spans.begin[row] >= spans.end[row + count() - 1]) return;
            staged_value_tile<count(), vectors()>(probabilities + row * kKeyTile, spans.from(row), keep + row, numbers_,
                                                  out + row * dim_ + column, dim_);
          });
        }
      });
    }
  }

 private:
  float* keys_from(int64_t key) const { return numbers_ + key / kPanel * kPanel * head_dim_ + key % kPanel; }
  // `count` vectors, ld apart, to ones that are ld_out apart.
  static void widen_vectors(const T* from, int64_t ld, int64_t count, float* out, int64_t ld_out) {
    constexpr int kTogether = kWidened<T>;
    for (; count >= kTogether; count -= kTogether, from += kTogether * ld, out += kTogether * ld_out) {
      F w[kTogether];
      load_vectors<kTogether>(from, ld, w);
      BAO_UNROLL
      for (int v = 0; v < kTogether; v++) store(out + v * ld_out, w[v]);
    }
    for (; count > 0; count--, from += ld, out += ld_out) store(out, load(from));
  }

  const int64_t head_dim_, dim_;
  float* numbers_;
};

}  // namespace
}  // namespace bao::BAO_ISA
