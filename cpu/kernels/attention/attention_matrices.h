// The rows of an item over a bfloat16 cache, multiplied in AMX's matrix registers.
//
// A range of keys is taken at once: scores of all its keys, one softmax, sums of all its values, so that nothing is rescaled. Of a row each
// score is one chain of products over its dimensions, each sum one over the range's keys in steps of kStep, with zeros for keys that it
// does not see; adding those changes nothing.
#pragma once

#include "attention_items.h"
#include "attention_matrix_few.h"

#if defined(__AMX_BF16__)
namespace bao::BAO_ISA {
namespace {

constexpr int64_t kTileSteps = kKeyTile / kStep;

class MatrixRows {
 public:
  MatrixRows(const PagedAttentionArgs& a, Scratch& scratch)
      : a_(a), dim_(padded_head_dim(a.head_dim)), steps_(ceil_div(a.head_dim, kStep)) {
    const int64_t rows = scratch_rows(a);
    queries_ = scratch.take<char>(rows / kMatrixRows * steps_ * kMatrixBytes);
    scores_ = scratch.take<float>(rows * kLdScores);
    probabilities_ = scratch.take<char>(rows / kMatrixRows * kRangeBytes);
    spans_ = {scratch.take<int32_t>(rows), scratch.take<int32_t>(rows)};
    keys_ = scratch.take<char>(kKeyTile / kGroup * max(steps_, 2) * kMatrixBytes);
    values_ = scratch.take<char>(kValueTiles * kTileSteps * dim_ / kColumns * kMatrixBytes);
  }

  void load_queries(const Item& item) {
    item.for_each_row([&](int64_t row, int64_t query, int64_t head) {
      const float* q = a_.q + query * a_.ld_q + head * a_.head_dim;
      char* out = queries_ + row / kMatrixRows * steps_ * kMatrixBytes + row % kMatrixRows * kMatrixRowBytes;
      for (int64_t d = 0; d < steps_ * kStep; d += kLanes) {
        prefetch_near(q + kQueriesAhead * a_.ld_q + d);
        const F numbers = d + kLanes <= a_.head_dim ? load(q + d) : load_n(q + d, max(0, a_.head_dim - d));
        const auto rounded = _mm512_cvtneps_pbh(numbers * a_.scale);
        std::memcpy(out + d / kStep * kMatrixBytes + d % kStep * 2, &rounded, sizeof(rounded));
      }
    });
  }

  // The item's rows over a range of keys, to `state`.
  void attend_range(const Item& item, const RangeTiles<BFloat16>& range, const State& state) {
    const int64_t rows = item.rows();
    registers_.shape(uint64_t{0x1010} << 48 | static_cast<uint64_t>(min(rows, kMatrixRows)) * 0x010101010101u);
    item.see(a_, range.base, kKeyRange, spans_);
    const int64_t first_tile = range.first_tile(), end_tile = range.end_tile();
    // What is read: the keys of all tiles, their values, and what comes next.
    Groups<BFloat16> areas[2 * kRangeTiles + 2];
    const int64_t count = end_tile - first_tile;
    for (int64_t i = 0; i < count; i++) {
      areas[i] = range.of[first_tile + i].key_areas;
      areas[count + i] = range.of[first_tile + i].values;
    }
    areas[2 * count] = range.next[0];
    areas[2 * count + 1] = range.next[1];

    if (is_read_once(item)) return read_once(range, areas, rows, state);
    for (int64_t i = 0; i < count; i++) {
      score_tile(range.of[first_tile + i], first_tile + i, rows, Coming<BFloat16>{areas[i + 1], areas[i + 2]});
    }
    for_each_block(rows, [&](auto two, int64_t row, int64_t begin, int64_t end) {
      softmax(row, min(kMatrixRows, rows - row), begin, end, state);
      if constexpr (two()) softmax(row + kMatrixRows, min(kMatrixRows, rows - row - kMatrixRows), begin, end, state);
    });
    const char* probabilities = probabilities_ + first_tile * kTileSteps * kMatrixBytes;
    const bool finite = rows > kMatrixRows ? add_staged_values(range, areas + count, rows, state)
                                           : add_values_of_few_rows(probabilities, range, areas + count, dim_, values_, state.values);
    if (!finite) add_others(range, rows, state);
  }

 private:
  // Floats between rows of scores: not a multiple of so much that rows fall on few sets of a cache.
  static constexpr int64_t kLdScores = kKeyRange + kLanes;
  // Bytes of 16 rows of probabilities.
  static constexpr int64_t kRangeBytes = kKeyRange / kStep * kMatrixBytes;
  // Tiles of values that are staged together where there are many rows: their sums are loaded and stored once for all of them.
  static constexpr int64_t kValueTiles = 4;

  // f(Two, first row, the steps of keys that one of the rows sees) for each 32 rows, or 16 where there are no more: these take whole tiles.
  template <class Fn>
  BAO_INLINE_MEMBER void for_each_block(int64_t rows, Fn f) const {
    for (int64_t row = 0; row < rows; row += 2 * kMatrixRows) {
      const int64_t last = min(rows, row + 2 * kMatrixRows) - 1;
      const int64_t begin = spans_.begin[row], end = spans_.end[last];
      if (last - row >= kMatrixRows) {
        f(std::true_type{}, row, begin / kStep, ceil_div(end, kStep));
      } else {
        f(std::false_type{}, row, begin / kKeyTile * kTileSteps, ceil_div(end, kKeyTile) * kTileSteps);
      }
    }
  }

  // Where reading takes the time (measured: up to three rows, or four with short heads): a query alone, so that all rows see the same keys.
  bool is_read_once(const Item& item) const {
    return item.num_queries == 1 && item.rows() <= (a_.head_dim <= kStep ? kFewRows : 3) && a_.head_dim % 2 == 0;
  }
  void read_once(const RangeTiles<BFloat16>& range, const Groups<BFloat16>* areas, int64_t rows, const State& state) {
    const int64_t first_tile = range.first_tile(), count = range.end_tile() - first_tile, ld = steps_ * kStep;
    float* queries = reinterpret_cast<float*>(values_);
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t d = 0; d < ld; d += kLanes) {
        const char* rounded = queries_ + d / kStep * kMatrixBytes + row * kMatrixRowBytes + d % kStep * 2;
        store(queries + row * ld + d, load(reinterpret_cast<const BFloat16*>(rounded)));
      }
    }
    with_rows<kFewRows>(rows, [&](auto R) {
      for (int64_t i = 0; i < count; i++) {
        few_scores<R()>(queries, ld, range.of[first_tile + i], a_.head_dim, scores_ + (first_tile + i) * kKeyTile, kLdScores,
                        {areas[i + 1], areas[i + 2]});
      }
      const int64_t begin = spans_.begin[0], end = spans_.end[0];
      softmax(0, rows, begin / kStep, ceil_div(end, kStep), state);
      for (int64_t i = 0; i < count; i++) {
        const int64_t base = (first_tile + i) * kKeyTile;
        few_values<R()>(probabilities_ + base / kStep * kMatrixBytes, range.of[first_tile + i], dim_, max(0, begin - base), min(kKeyTile, end - base),
                        i == 0, state.values, {areas[count + i + 1], areas[count + i + 2]});
      }
    });
  }

  void score_tile(const Tile<BFloat16>& tile, int64_t number, int64_t rows, const Coming<BFloat16>& coming) {
    if (rows <= kMatrixRows) {
      (tile.ld_keys == kGroup ? score_few_rows<true> : score_few_rows<false>)(queries_, tile, a_.head_dim, keys_,
                                                                              scores_ + number * kKeyTile, kLdScores, coming);
      return;
    }
    for (int64_t g = 0; g < kKeyTile / kGroup; g++) {
      if (!tile.keys.of[g]) continue;
      const auto stage = [&](auto dense) {
        for (int64_t d = 0; d < a_.head_dim; d += kStep) {
          stage_keys<dense()>(tile.keys.of[g] + d * tile.ld_keys, tile.ld_keys, a_.head_dim - d, keys_ + (g * steps_ + d / kStep) * kMatrixBytes,
                              coming.soon.of[g] + d * kGroup, coming.later.of[g] + d * kGroup);
        }
      };
      if (tile.ld_keys == kGroup) {
        stage(std::true_type{});
      } else {
        stage(std::false_type{});
      }
    }
    for_each_block(rows, [&](auto two, int64_t row, int64_t begin, int64_t end) { score<two()>(row, number, begin, end); });
  }

  template <bool Two>
  void score(int64_t row, int64_t tile, int64_t begin, int64_t end) {
    const char* queries = queries_ + row / kMatrixRows * steps_ * kMatrixBytes;
    const int64_t group_bytes = steps_ * kMatrixBytes;
    // Two groups are a step of values.
    constexpr int N = Two ? 2 : 4;
    for (int64_t step = 0; step < kTileSteps; step += N / 2) {
      const int64_t at = tile * kTileSteps + step;
      if (at >= end || at + N / 2 <= begin) continue;
      multiply_tiles<Two, N>(queries, group_bytes, keys_ + step * 2 * group_bytes, group_bytes, steps_, true,
                             scores_ + row * kLdScores + at * kStep, kLdScores);
    }
  }

  // f(number of panels of 16 columns, the first) for all columns, N panels at once and then fewer.
  template <int N, class Fn>
  BAO_INLINE_MEMBER void for_each_panels(Fn f, int64_t panel = 0) const {
    for (; panel + N <= dim_ / kColumns; panel += N) f(std::integral_constant<int, N>{}, panel);
    if constexpr (N > 1) for_each_panels<N / 2>(f, panel);
  }

  // False where a value is not finite, which counts as 0.
  bool add_staged_values(const RangeTiles<BFloat16>& range, const Groups<BFloat16>* areas, int64_t rows, const State& state) {
    const int64_t at_once = rows > 2 * kMatrixRows ? kValueTiles : 1, next_columns = at_once * kTileSteps * kMatrixBytes;
    bool finite = true;
    for (int64_t tile = range.first_tile(); tile < range.end_tile(); tile += at_once) {
      const int64_t end_of_some = min(range.end_tile(), tile + at_once);
      for (int64_t t = tile; t < end_of_some; t++) {
        const Groups<BFloat16>* coming = areas + t - range.first_tile() + 1;
        finite &= stage_tile_values(range.of[t], values_ + (t - tile) * kTileSteps * kMatrixBytes, next_columns, {coming[0], coming[1]});
      }
      for_each_block(rows, [&](auto two, int64_t row, int64_t begin, int64_t end) {
        add_values<two()>(row, tile * kTileSteps, end_of_some * kTileSteps, begin, end, next_columns, tile == range.first_tile(), state);
      });
    }
    return finite;
  }
  bool stage_tile_values(const Tile<BFloat16>& tile, char* out, int64_t next_columns, const Coming<BFloat16>& coming) {
    FiniteWatch watch;
    for (int64_t pair = 0; pair < kKeyTile / 2; pair++) {
      stage_pair(tile.values, pair, dim_, out + pair * kMatrixRowBytes, next_columns, coming, watch);
    }
    if (watch.all_finite()) return true;
    for (int64_t column = 0; column < dim_; column += kColumns, out += next_columns) drop_others(out, kTileSteps);
    return false;
  }

  template <bool Two>
  void add_values(int64_t row, int64_t first, int64_t last, int64_t begin, int64_t end, int64_t next_columns, bool fresh, const State& state) {
    const int64_t from = max(first, begin), steps = max(0, min(last, end) - from);
    if (steps == 0 && !fresh) return;
    const char* probabilities = probabilities_ + row / kMatrixRows * kRangeBytes + from * kMatrixBytes;
    for_each_panels<Two ? 2 : 4>([&](auto n, int64_t panel) {
      multiply_tiles<Two, n()>(probabilities, kRangeBytes, values_ + panel * next_columns + (from - first) * kMatrixBytes, next_columns, steps,
                               fresh, state.values + row * dim_ + panel * kColumns, dim_);
    });
  }

  // use(step, mask, whether there are others beside the mask's) for the steps that a row sees keys of.
  template <class Use>
  BAO_INLINE_MEMBER static void for_each_step(int64_t begin, int64_t end, Use use) {
    int64_t step = begin / kStep;
    const auto some = [&] {
      const int64_t before = max(0, begin - step * kStep), behind = max(0, (step + 1) * kStep - end);
      use(step, static_cast<__mmask32>(~0u << before & ~0u >> behind), std::true_type{});
      step++;
    };
    if (begin % kStep != 0 && begin < end) some();
    for (; (step + 1) * kStep <= end; step++) use(step, ~0u, std::false_type{});
    if (step * kStep < end) some();
  }

  // Scores of up to 16 rows become probabilities, zeros for keys that a row does not see, in the steps from begin to end.
  void softmax(int64_t row, int64_t rows, int64_t begin, int64_t end, const State& state) {
    const RowSpans spans = spans_.from(row);
    F lanes[kLanes];
    for (int64_t r = 0; r < rows; r++) lanes[r] = highest(scores_ + (row + r) * kLdScores, spans.begin[r], spans.end[r]);
    const F maximum = max(set1(kNothing), reduce_max(lanes, static_cast<int>(rows)));
    store(state.maximum + row, maximum);
    char* out = probabilities_ + row / kMatrixRows * kRangeBytes;
    for (int64_t r = 0; r < rows; r++, out += kMatrixRowBytes) {
      for (int64_t step = begin; step < spans.begin[r] / kStep; step++) store_line(out + step * kMatrixBytes, __m512i{});
      for (int64_t step = max(begin, ceil_div(spans.end[r], kStep)); step < end; step++) store_line(out + step * kMatrixBytes, __m512i{});
      lanes[r] = exponentiate(scores_ + (row + r) * kLdScores, spans.begin[r], spans.end[r], state.maximum[row + r], out);
    }
    store(state.sum + row, reduce_add(lanes, static_cast<int>(rows)));
  }

  F highest(float* scores, int64_t begin, int64_t end) const {
    if (a_.soft_cap > 0) {
      for (int64_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
        store(scores + j, a_.soft_cap * tanh(load(scores + j) / a_.soft_cap));
      }
    }
    // (Of a score that is no number the second operand is taken.)
    F low = set1(kNothing), high = low;
    for_each_step(begin, end, [&](int64_t step, __mmask32 mask, auto some) __attribute__((always_inline)) {
      const F first = load(scores + step * kStep), second = load(scores + step * kStep + kLanes);
      if constexpr (some()) {
        low = _mm512_mask_max_ps(low, static_cast<__mmask16>(mask), first, low);
        high = _mm512_mask_max_ps(high, static_cast<__mmask16>(mask >> kLanes), second, high);
      } else {
        low = max(first, low);
        high = max(second, high);
      }
    });
    return max(low, high);
  }

  // The sum of the probabilities in each lane. They are rounded to bfloat16; the sum is not.
  static F exponentiate(float* scores, int64_t begin, int64_t end, float maximum, char* out) {
    constexpr float kLog2E = 1.44269504f;
    const F subtrahend = set1(maximum * kLog2E);
    const auto pass = [&] {
      F low{}, high{};
      for_each_step(begin, end, [&](int64_t step, __mmask32 mask, auto some) __attribute__((always_inline)) {
        F first = exp2(_mm512_fmsub_ps(load(scores + step * kStep), set1(kLog2E), subtrahend));
        F second = exp2(_mm512_fmsub_ps(load(scores + step * kStep + kLanes), set1(kLog2E), subtrahend));
        if constexpr (some()) {
          first = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), first);
          second = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> kLanes), second);
        }
        low += first;
        high += second;
        const auto rounded = _mm512_cvtne2ps_pbh(second, first);
        std::memcpy(out + step * kMatrixBytes, &rounded, sizeof(rounded));
      });
      return low + high;
    };
    const F sum = pass();
    if (_mm512_cmpunord_ps_mask(sum, sum) == 0) return sum;
    // A score that is no number counts for nothing.
    for (int64_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
      const F score = load(scores + j);
      store(scores + j, score == score ? score : set1(kNothing));
    }
    return pass();
  }

  // Values that are not finite: rows that don't see their keys must not multiply them, since 0 times them is no number. So zeros took their
  // place, and what they add is added to the others afterwards.
  void add_others(const RangeTiles<BFloat16>& range, int64_t rows, const State& state) {
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t key = spans_.begin[row]; key < spans_.end[row]; key++) {
        const Tile<BFloat16>& tile = range.of[key / kKeyTile];
        const BFloat16* numbers = tile.values.of[key % kKeyTile / kGroup] + key % kGroup * dim_;
        const auto* probability = reinterpret_cast<const BFloat16*>(probabilities_ + row / kMatrixRows * kRangeBytes + key / kStep * kMatrixBytes +
                                                                    row % kMatrixRows * kMatrixRowBytes) + key % kStep;
        for (int64_t d = 0; d < dim_; d++) {
          if ((numbers[d].bits & 0x7f80) != 0x7f80) continue;
          state.values[row * dim_ + d] += bits_to_float(uint32_t{probability->bits} << 16) * bits_to_float(uint32_t{numbers[d].bits} << 16);
        }
      }
    }
  }

  const PagedAttentionArgs& a_;
  NoDenormals no_denormals_;
  MatrixRegisters registers_;
  const int64_t dim_, steps_;
  // Tiles [rows / 16][steps], scaled.
  char* queries_;
  // [rows][kLdScores]
  float* scores_;
  // Tiles [rows / 16][steps of a range].
  char* probabilities_;
  RowSpans spans_;
  // A tile of keys [groups][steps], some tiles of values [dim / 16][steps].
  char* keys_;
  char* values_;
};

}  // namespace
}  // namespace bao::BAO_ISA
#endif
