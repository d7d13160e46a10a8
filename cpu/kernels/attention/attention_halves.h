// The rows of an item over a cache of 8-bit floats, multiplied as halves.
#pragma once

#include "attention_half_tile.h"
#include "attention_items.h"

#if defined(__AVX512FP16__)
namespace bao::BAO_ISA {
namespace {

class HalfRows {
 public:
  HalfRows(const PagedAttentionArgs& a, Scratch& scratch)
      : a_(a), dim_(padded_head_dim(a.head_dim)), ld_queries_(half_steps(dim_)), ld_values_(round_up(dim_, 64)) {
    const int64_t rows = scratch_rows(a);
    queries_ = scratch.take<Halves>(rows * ld_queries_);
    factors_ = scratch.take<float>(rows);
    scores_ = scratch.take<float>(rows * kKeyTile);
    keep_ = scratch.take<float>(rows);
    spans_ = {scratch.take<int32_t>(rows), scratch.take<int32_t>(rows)};
    keys_ = scratch.take<WidenedE4M3>(kKeyTile * dim_);
    values_ = scratch.take<WidenedE4M3>(kKeyTile * ld_values_);
  }

  // Each times the power of two that brings its greatest number to where sums don't overflow.
  void load_queries(const Item& item) {
    item.for_each_row([&](int64_t row, int64_t query, int64_t head) {
      const float* q = a_.q + query * a_.ld_q + head * a_.head_dim;
      const auto at = [&](int64_t d) {
        return (d + kLanes <= a_.head_dim ? load(q + d) : load_n(q + d, a_.head_dim - d)) * a_.scale;
      };
      I magnitude{};
      for (int64_t d = 0; d < a_.head_dim; d += kLanes) magnitude = max(magnitude, reinterpret_cast<I>(as_bits(at(d)) & 0x7fffffffu));
      const Scale scale = scale_for<kQueryExponent>(bits_to_float(static_cast<uint32_t>(reduce_max(magnitude))));
      factors_[row] = scale.from_half * 256.0f;
      for (int64_t d = 0; d < a_.head_dim; d += kLanes) store_query(row, d, at(d) * scale.to_half);
    });
  }

  // Adds the keys of a tile that rows see to the state; `next` is attended next.
  void attend_tile(const Item& item, const KeySpan& span, const Tile<Float8E4M3>& now, const Tile<Float8E4M3>& next, const State& state) {
    // Where rows take one register tile, numbers are widened on their way to it.
    const bool direct = item.rows() <= kTileRows;
    const bool key_nan = direct ? score<true>(item, span, now.keys, now.ld_keys, Coming<Float8E4M3>{now.values, next.key_areas})
                                : score_staged(item, span, now);
    if (key_nan) mark_scores(item, span, now);
    softmax(item, span, state);
    const bool value_nan = direct ? add_values<true>(item, span, now.values, dim_, Coming<Float8E4M3>{next.key_areas, next.values}, state)
                                  : add_staged_values(item, span, now, state);
    if (value_nan) mark_values(item, now, state);
  }

 private:
  // Each of 16 dimensions from d on in 128 bits of its own.
  void store_query(int64_t row, int64_t d, F numbers) {
    const __m512i halves = _mm512_castsi256_si512(_mm256_castph_si256(_mm512_cvtxps_ph(numbers)));
    const __m512i first = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002, 0x0002000200020002,
                                           0x0001000100010001, 0x0001000100010001, 0, 0);
    for (int64_t i = 0; i < kLanes / kStepDims; i++) {
      const __m512i places = _mm512_add_epi16(first, _mm512_set1_epi16(static_cast<int16_t>(i * kStepDims)));
      queries_[row * ld_queries_ + d / kStepDims + i] = _mm512_castsi512_ph(_mm512_permutexvar_epi16(places, halves));
    }
  }

  template <bool Ahead, class K, class C>
  bool score(const Item& item, const KeySpan& span, const Groups<K>& keys, int64_t ld_keys, const Coming<C>& coming) {
    bool nan = false;
    for (int64_t row = 0; row < item.rows(); row += kTileRows) {
      with_rows<kTileRows>(item.rows() - row, [&](auto count) {
        nan |= half_score_groups<count(), Ahead>(queries_ + row * ld_queries_, ld_queries_, factors_ + row, keys, ld_keys,
                                                 half_steps(a_.head_dim), span.group_begin(), span.group_end(), scores_ + row * kKeyTile,
                                                 coming);
      });
    }
    return nan;
  }

  // Probabilities become pairs of halves, and zeros where a row does not see a key, so that all rows can take all values: those of unseen
  // keys are finite as numbers over 256.
  void softmax(const Item& item, const KeySpan& span, const State& state) {
    item.see(a_, span.tile, kKeyTile, spans_);
    softmax_rows(scores_, spans_, item.rows(), a_.soft_cap, state, keep_);
    rescale(state.values, keep_, item.rows(), dim_);
    for (int64_t row = 0; row < item.rows(); row++) {
      const int32_t begin = spans_.begin[row], end = spans_.end[row];
      float* scores = scores_ + row * kKeyTile;
      for (int64_t j = span.group_begin() * kGroup; j < span.group_end() * kGroup; j += kLanes) {
        const bool seen = j + kLanes > begin && j < end;
        const __m256h halves = _mm512_cvtxps_ph(seen ? load(scores + j) * static_cast<float>(1 << kProbabilityExponent) : F{});
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_castph_si256(halves));
        store(scores + j, reinterpret_cast<F>(_mm512_or_si512(wide, _mm512_slli_epi32(wide, 16))));
      }
    }
  }

  template <bool Ahead, class V, class C>
  bool add_values(const Item& item, const KeySpan& span, const Groups<V>& values, int64_t ld, const Coming<C>& coming, const State& state) {
    bool nan = false;
    for (int64_t row = 0; row < item.rows(); row += kTileRows) {
      with_rows<kTileRows>(item.rows() - row, [&](auto count) {
        nan |= half_value_columns<count(), half_tile_groups<count()>, Ahead>(
            scores_ + row * kKeyTile, values, ld, span.group_begin(), span.group_end(), 0, dim_,
            state.values + row * dim_, coming);
      });
    }
    return nan;
  }

  bool score_staged(const Item& item, const KeySpan& span, const Tile<Float8E4M3>& tile) {
    NanWatch nan;
    Groups<WidenedE4M3> staged{};
    for (int64_t g = span.group_begin(); g < span.group_end(); g++) {
      WidenedE4M3* out = keys_ + g * kGroup * dim_;
      staged.of[g] = out;
      for (int64_t d = 0; d < a_.head_dim; d += kStepDims, out += kStepDims * kGroup) {
        Halves low, high;
        load_step(tile.keys.of[g] + d * tile.ld_keys, tile.ld_keys, low, high, nan);
        store_step(out, low, high);
      }
    }
    score<false>(item, span, staged, kGroup, Coming<WidenedE4M3>{});
    return nan.seen();
  }
  bool add_staged_values(const Item& item, const KeySpan& span, const Tile<Float8E4M3>& tile, const State& state) {
    NanWatch nan;
    Groups<WidenedE4M3> staged{};
    for (int64_t g = span.group_begin(); g < span.group_end(); g++) {
      WidenedE4M3* out = values_ + g * kGroup * ld_values_;
      staged.of[g] = out;
      for (const Float8E4M3 *row = tile.values.of[g], *last = row + kGroup * dim_; row < last; row += dim_) {
        for (int64_t column = 0; column < dim_; column += 64, out += 64) {
          Halves low, high;
          load_value(row + column, value_words(dim_ - column), low, high, nan);
          store_step(out, low, high);
        }
      }
    }
    add_values<false>(item, span, staged, ld_values_, Coming<WidenedE4M3>{}, state);
    return nan.seen();
  }
  static void store_step(WidenedE4M3* out, Halves low, Halves high) {
    std::memcpy(out, &low, sizeof(Halves));
    std::memcpy(out + 32, &high, sizeof(Halves));
  }

  // What NaN makes of scores and of values, as if it had been multiplied.
  void mark_scores(const Item& item, const KeySpan& span, const Tile<Float8E4M3>& tile) {
    for (int64_t key = 0; key < kKeyTile; key++) {
      if (!span.has(key)) continue;
      const Float8E4M3* numbers = tile.keys.of[key / kGroup] + key % kGroup;
      bool nan = false;
      for (int64_t d = 0; d < a_.head_dim; d++) nan |= numbers[d * tile.ld_keys].is_nan();
      for (int64_t row = 0; nan && row < item.rows(); row++) scores_[row * kKeyTile + key] = __builtin_nanf("");
    }
  }
  void mark_values(const Item& item, const Tile<Float8E4M3>& tile, const State& state) {
    for (int64_t row = 0; row < item.rows(); row++) {
      for (int64_t key = spans_.begin[row]; key < spans_.end[row]; key++) {
        const Float8E4M3* numbers = tile.values.of[key / kGroup] + key % kGroup * dim_;
        for (int64_t d = 0; d < dim_; d++) {
          if (numbers[d].is_nan()) state.values[row * dim_ + d] = __builtin_nanf("");
        }
      }
    }
  }

  const PagedAttentionArgs& a_;
  const int64_t dim_, ld_queries_, ld_values_;
  // [rows][ld_queries], scaled
  Halves* queries_;
  // What scores are multiplied by in turn.
  float* factors_;
  // [rows][kKeyTile], scores and then pairs of probabilities
  float* scores_;
  float* keep_;
  RowSpans spans_;
  // A tile that is widened once for many rows: groups of [steps][64], [kKeyTile][ld_values]
  WidenedE4M3* keys_;
  WidenedE4M3* values_;
};

}  // namespace
}  // namespace bao::BAO_ISA
#endif
