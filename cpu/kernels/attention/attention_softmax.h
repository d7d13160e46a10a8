// Running softmax of rows, and the memory that it is kept in.
#pragma once

#include "../simd.h"

namespace bao::BAO_ISA {
namespace {

// Stands for the logarithm of nothing; finite, so that differences of it are numbers.
constexpr float kNothing = -1e30f;

// The rows of an item: maximum, sum of exponentials, weighted sum of values [rows][dim].
struct State {
  float* maximum;
  float* sum;
  float* values;
};

// The scratch memory of a thread.
class Scratch {
 public:
  explicit Scratch(void* memory) : at_(static_cast<char*>(memory)) {}

  // Whole lines.
  template <class T>
  T* take(int64_t count) {
    char* begin = at_;
    at_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(begin);
  }

 private:
  char* at_;
};

static State take_state(Scratch& scratch, int64_t rows, int64_t dim) {
  return {scratch.take<float>(rows), scratch.take<float>(rows), scratch.take<float>(rows * dim)};
}

BAO_INLINE void clear(const State& state, int64_t rows, int64_t dim) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    store(state.maximum + row, set1(kNothing));
    store(state.sum + row, F{});
  }
  std::memset(state.values, 0, static_cast<size_t>(rows * dim) * sizeof(float));
}

static void merge(const State& into, const State& from, int64_t rows, int64_t dim) {
  for (int64_t row = 0; row < rows; row++) {
    const float maximum = max(into.maximum[row], from.maximum[row]);
    const float keep = exp(into.maximum[row] - maximum), add = exp(from.maximum[row] - maximum);
    into.maximum[row] = maximum;
    into.sum[row] = into.sum[row] * keep + from.sum[row] * add;
    for (int64_t d = 0; d < dim; d += kLanes) {
      float* value = into.values + row * dim + d;
      store(value, fma(load(from.values + row * dim + d), set1(add), load(value) * keep));
    }
  }
}

// The keys of a tile or range that each row sees: those from its begin to its end, both of which never fall from one row to the next.
struct RowSpans {
  int32_t* begin;
  int32_t* end;

  RowSpans from(int64_t row) const { return {begin + row, end + row}; }
};

// The greatest of a row's scores in each lane; scores that the row does not see, beside some that it sees, become nothing.
BAO_INLINE F highest_scores(float* scores, int32_t begin, int32_t end, float soft_cap) {
  // (Of a score that is no number the second operand is taken.)
  F highest = set1(kNothing);
  if (begin == 0 && end == kKeyTile && !(soft_cap > 0)) {
    BAO_UNROLL
    for (int j = 0; j < kKeyTile; j += kLanes) highest = max(load(scores + j), highest);
    return highest;
  }
  I lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  for (int32_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
    F s = load(scores + j);
    if (soft_cap > 0) s = soft_cap * tanh(s / soft_cap);
    const I key = lane + j;
    s = ((key >= begin) & (key < end)) ? s : set1(kNothing);
    highest = max(s, highest);
    store(scores + j, s);
  }
  return highest;
}

// Scores become probabilities relative to the maximum; their sum in each lane.
BAO_INLINE F exponentiate(float* scores, int32_t begin, int32_t end, float maximum) {
  F sum{};
  const F subtrahend = set1(maximum);
  for (int32_t j = begin / kLanes * kLanes; j < end; j += kLanes) {
    const F p = exp(load(scores + j) - subtrahend);
    sum += p;
    store(scores + j, p);
  }
  return sum;
}

// Scores [rows][kKeyTile] of one tile become probabilities relative to each row's new maximum, where the row sees them; vectors without
// such a score are left out. Sums so far are rescaled to it, and `keep` is what values so far have to be multiplied by. Numbers of rows
// have room for whole vectors. (Rows are taken together so that one's latencies hide behind the others'.)
static __attribute__((noinline)) void softmax_rows(float* scores, const RowSpans& spans, int64_t rows, float soft_cap,
                                                   const State& state, float* keep) {
  for (int64_t first = 0; first < rows; first += kLanes) {
    const int count = static_cast<int>(min(kLanes, rows - first));
    float* block = scores + first * kKeyTile;
    const int32_t *begin = spans.begin + first, *end = spans.end + first;
    F lanes[kLanes];
    for (int r = 0; r < count; r++) lanes[r] = highest_scores(block + r * kKeyTile, begin[r], end[r], soft_cap);
    const F before = load(state.maximum + first);
    const F maximum = max(before, reduce_max(lanes, count));
    store(state.maximum + first, maximum);
    const F kept = exp(before - maximum);
    store(keep + first, kept);
    for (int r = 0; r < count; r++) {
      lanes[r] = exponentiate(block + r * kKeyTile, begin[r], end[r], state.maximum[first + r]);
    }
    store(state.sum + first, load(state.sum + first) * kept + reduce_add(lanes, count));
  }
}

static void rescale(float* values, const float* keep, int64_t rows, int64_t dim) {
  for (int64_t row = 0; row < rows; row++, values += dim) {
    if (keep[row] == 1.0f) continue;
    for (int64_t d = 0; d < dim; d += kLanes) store(values + d, load(values + d) * keep[row]);
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
