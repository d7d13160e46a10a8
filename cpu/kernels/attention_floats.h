// The rows of an item, whose arithmetic is float32.
#pragma once

#include "attention_items.h"
#include "attention_softmax.h"
#include "attention_tile.h"

namespace bao::BAO_ISA {
namespace {

template <class T>
class FloatRows {
 public:
  FloatRows(const PagedAttentionArgs& a, Scratch& scratch) : a_(a), dim_(padded_head_dim(a.head_dim)) {
    const int64_t rows = scratch_rows(a);
    queries_ = scratch.take<float>(rows * dim_);
    scores_ = scratch.take<float>(rows * kKeyTile);
    keys_ = scratch.take<float>(kKeyTile * dim_);
    values_ = scratch.take<float>(kKeyTile * dim_);
  }

  void load_queries(const Item& item) {
    for (int64_t row = 0; row < item.rows(); row++) {
      const float* q = item.query_of(a_, row);
      float* out = queries_ + row * dim_;
      int64_t d = 0;
      for (; d + kLanes <= a_.head_dim; d += kLanes) store(out + d, load(q + d) * a_.scale);
      if (d < a_.head_dim) store_n(out + d, load_n(q + d, a_.head_dim - d) * a_.scale, a_.head_dim - d);
    }
  }

  // Adds the keys [first, last) of a tile to the state; `next` is attended next.
  void attend_tile(const Item& item, const KeySpan& span, const Tile<T>& now, const Tile<T>& next, const State& state) {
    // Converting a tile once pays from some rows on.
    if (item.rows() <= 2 * kTileRows) {
      score<true>(item, span, now.keys, now.ld_keys, Coming<T>{now.values, next.key_areas});
      softmax(item, span, state);
      add_values<true>(item, span, now.values, Coming<T>{next.key_areas, next.values}, state);
    } else {
      stage(span, now);
      score<false>(item, span, staged(keys_, kGroup), kKeyTile, Coming<float>{});
      softmax(item, span, state);
      add_values<false>(item, span, staged(values_, kGroup * dim_), Coming<float>{}, state);
    }
  }

 private:
  template <bool Ahead, class K, class C>
  void score(const Item& item, const KeySpan& span, const Groups<K>& keys, int64_t ld_keys, const Coming<C>& coming) {
    const int64_t rows = item.rows();
    for (int64_t row = 0; row < rows; row += kTileRows) {
      with_rows<kTileRows>(rows - row, [&](auto count) {
        score_groups<count(), Ahead>(queries_ + row * dim_, dim_, keys, ld_keys, a_.head_dim, span.group_begin(), span.group_end(),
                                     scores_ + row * kKeyTile, coming);
      });
    }
  }

  void softmax(const Item& item, const KeySpan& span, const State& state) {
    for (int64_t row = 0; row < item.rows(); row++) {
      const int64_t begin = item.span_begin(a_, row, span.tile), end = item.span_end(row, span.tile);
      if (begin >= end) continue;
      softmax_row(scores_ + row * kKeyTile, static_cast<int32_t>(begin), static_cast<int32_t>(end), a_.soft_cap, state.maximum[row], state.sum[row], state.values + row * dim_, dim_);
    }
  }

  // A row takes only the keys that it sees: another's value may be infinite, and 0 times that is no number. Rows of a register
  // tile share the keys that all of them see; the few before and after are each row's own.
  template <bool Ahead, class V, class C>
  void add_values(const Item& item, const KeySpan& span, const Groups<V>& values, const Coming<C>& coming, const State& state) {
    const auto add = [&](auto count, int64_t row, int64_t begin, int64_t end) {
      if (begin >= end) return;
      value_columns<count(), tile_vectors<count()>, Ahead>(scores_ + row * kKeyTile, values, dim_, begin, end, 0,
                                                            state.values + row * dim_, coming);
    };
    constexpr std::integral_constant<int, 1> kOne{};
    const auto span_begin = [&](int64_t row) { return item.span_begin(a_, row, span.tile); };
    const auto span_end = [&](int64_t row) { return item.span_end(row, span.tile); };
    for (int64_t first = 0; first < item.rows(); first += kTileRows) {
      const int64_t rows = min(kTileRows, item.rows() - first);
      const int64_t begin = span_begin(first + rows - 1);
      const int64_t end = max(begin, span_end(first));
      for (int64_t row = first; row < first + rows; row++) add(kOne, row, span_begin(row), min(begin, span_end(row)));
      with_rows<kTileRows>(rows, [&](auto count) { add(count, first, begin, min(end, span_end(first))); });
      for (int64_t row = first; row < first + rows; row++) add(kOne, row, max(end, span_begin(row)), span_end(row));
    }
  }

  void stage(const KeySpan& span, const Tile<T>& tile) {
    for (int64_t g = span.group_begin(); g < span.group_end(); g++) {
      for (int64_t i = 0; i < kGroup; i += kLanes) {
        stage_vectors(tile.keys.of[g] + i, tile.ld_keys, a_.head_dim, keys_ + g * kGroup + i, kKeyTile);
      }
      stage_vectors(tile.values.of[g], kLanes, kGroup * dim_ / kLanes, values_ + g * kGroup * dim_, kLanes);
    }
  }
  // `count` vectors, ld apart, to ones that are ld_out apart.
  static void stage_vectors(const T* from, int64_t ld, int64_t count, float* out, int64_t ld_out) {
    constexpr int kTogether = kWidened<T>;
    for (; count >= kTogether; count -= kTogether, from += kTogether * ld, out += kTogether * ld_out) {
      F w[kTogether];
      load_vectors<kTogether>(from, ld, w);
      BAO_UNROLL
      for (int v = 0; v < kTogether; v++) store(out + v * ld_out, w[v]);
    }
    for (; count > 0; count--, from += ld, out += ld_out) store(out, load(from));
  }
  static Groups<float> staged(const float* tile, int64_t stride) {
    Groups<float> groups{};
    for (int64_t g = 0; g < kKeyTile / kGroup; g++) groups.of[g] = tile + g * stride;
    return groups;
  }

  const PagedAttentionArgs& a_;
  const int64_t dim_;
  // [rows][dim], scaled
  float* queries_;
  // [rows][kKeyTile], scores and then probabilities
  float* scores_;
  // [head_dim][kKeyTile] and [kKeyTile][dim], where a tile is converted once for many rows
  float* keys_;
  float* values_;
};

}  // namespace
}  // namespace bao::BAO_ISA
