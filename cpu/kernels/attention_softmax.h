// Running softmax of rows, and the memory that it is kept in.
#pragma once

#include "simd.h"

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
  for (int64_t row = 0; row < rows; row++) {
    state.maximum[row] = kNothing;
    state.sum[row] = 0;
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

// Scores of one tile, of which the row sees those from begin to end, become probabilities relative to the row's new maximum; sum and
// values so far are rescaled to it. Vectors without a score that the row sees are left out.
static void softmax_row(float* scores, int32_t begin, int32_t end, float soft_cap, float& maximum, float& sum, float* values, int64_t dim) {
  I lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  F highest = set1(kNothing);
  const int32_t from = begin / kLanes * kLanes;
  for (int32_t j = from; j < end; j += kLanes) {
    F s = load(scores + j);
    if (soft_cap > 0) s = soft_cap * tanh(s / soft_cap);
    const I key = lane + j;
    s = ((key >= begin) & (key < end)) ? s : set1(kNothing);
    // (Of a score that is no number the second operand is taken.)
    highest = max(s, highest);
    store(scores + j, s);
  }
  const float next = max(maximum, reduce_max(highest));
  const float keep = exp(maximum - next);
  F added{};
  for (int32_t j = from; j < end; j += kLanes) {
    const F p = exp(load(scores + j) - next);
    added += p;
    store(scores + j, p);
  }
  sum = sum * keep + reduce_add(added);
  maximum = next;
  if (keep == 1.0f) return;
  for (int64_t d = 0; d < dim; d += kLanes) store(values + d, load(values + d) * keep);
}

}  // namespace
}  // namespace bao::BAO_ISA
