// The rows of an item, whose arithmetic is float32.
#pragma once

#include "attention_items.h"
#include "attention_staged.h"

namespace bao::BAO_ISA {
namespace {

template <class T>
class FloatRows {
 public:
  FloatRows(const PagedAttentionArgs& a, Scratch& scratch)
      : a_(a), dim_(padded_head_dim(a.head_dim)), staged_(a.head_dim, scratch) {
    const int64_t rows = scratch_rows(a);
    queries_ = scratch.take<float>(rows * dim_);
    scores_ = scratch.take<float>(rows * kKeyTile);
    keep_ = scratch.take<float>(rows);
    spans_ = {scratch.take<int32_t>(rows), scratch.take<int32_t>(rows)};
  }

  void load_queries(const Item& item) {
    item.for_each_row([&](int64_t row, int64_t query, int64_t head) {
      const float* q = a_.q + query * a_.ld_q + head * a_.head_dim;
      float* out = queries_ + row * dim_;
      int64_t d = 0;
      for (; d + kLanes <= a_.head_dim; d += kLanes) store(out + d, load(q + d) * a_.scale);
      if (d < a_.head_dim) store_n(out + d, load_n(q + d, a_.head_dim - d) * a_.scale, a_.head_dim - d);
    });
  }

  // Adds the keys [first, last) of a tile to the state; `next` is attended next.
  void attend_tile(const Item& item, const KeySpan& span, const Tile<T>& now, const Tile<T>& next, const State& state) {
    item.see(a_, span.tile, kKeyTile, spans_);
    // Widening a tile once pays from some rows on.
    if (item.rows() <= 2 * kTileRows) {
      score(item, span, now, Coming<T>{now.values, next.key_areas});
      softmax_rows(scores_, spans_, item.rows(), a_.soft_cap, state, keep_);
      rescale(state.values, keep_, item.rows(), dim_);
      add_values(item, now.values, Coming<T>{next.key_areas, next.values}, state);
    } else {
      staged_.widen_keys(now, span.group_begin(), span.group_end());
      staged_.score(queries_, item.rows(), spans_, scores_);
      softmax_rows(scores_, spans_, item.rows(), a_.soft_cap, state, keep_);
      staged_.add_values(now, span.group_begin(), span.group_end(), scores_, item.rows(), spans_, keep_, state.values);
    }
  }

 private:
  void score(const Item& item, const KeySpan& span, const Tile<T>& tile, const Coming<T>& coming) {
    const int64_t rows = item.rows();
    for (int64_t row = 0; row < rows; row += kTileRows) {
      with_rows<kTileRows>(rows - row, [&](auto count) {
        score_groups<count()>(queries_ + row * dim_, dim_, tile.keys, tile.ld_keys, a_.head_dim, span.group_begin(), span.group_end(),
                              scores_ + row * kKeyTile, coming);
      });
    }
  }

  // A row takes only the keys that it sees: another's value may be infinite, and 0 times that is no number. Rows of a register
  // tile share the keys that all of them see; the few before and after are each row's own.
  void add_values(const Item& item, const Groups<T>& values, const Coming<T>& coming, const State& state) {
    const auto add = [&](auto count, int64_t row, int64_t begin, int64_t end) {
      if (begin >= end) return;
      value_columns<count(), tile_vectors<count()>>(scores_ + row * kKeyTile, values, dim_, begin, end, 0, state.values + row * dim_,
                                                    coming);
    };
    constexpr std::integral_constant<int, 1> kOne{};
    for (int64_t first = 0; first < item.rows(); first += kTileRows) {
      const int64_t rows = min(kTileRows, item.rows() - first);
      const int64_t begin = spans_.begin[first + rows - 1];
      const int64_t end = max(begin, spans_.end[first]);
      for (int64_t row = first; row < first + rows; row++) add(kOne, row, spans_.begin[row], min(begin, spans_.end[row]));
      with_rows<kTileRows>(rows, [&](auto count) { add(count, first, begin, min(end, spans_.end[first])); });
      for (int64_t row = first; row < first + rows; row++) add(kOne, row, max(end, spans_.begin[row]), spans_.end[row]);
    }
  }

  const PagedAttentionArgs& a_;
  const int64_t dim_;
  // [rows][dim], scaled
  float* queries_;
  // [rows][kKeyTile], scores and then probabilities
  float* scores_;
  float* keep_;
  RowSpans spans_;
  // Where there are many rows.
  StagedTile<T> staged_;
};

}  // namespace
}  // namespace bao::BAO_ISA
