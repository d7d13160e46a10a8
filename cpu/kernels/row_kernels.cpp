#include "../row_kernels.h"

#include "simd.h"

namespace bao::BAO_ISA {

namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// The next lanes of a row; beyond n they are -infinity, and so is NaN.
BAO_INLINE F load_logits(const float* x, int64_t n) {
  F v;
  if (n >= kLanes) {
    v = load(x);
  } else {
    v = set1(kMinusInfinity);
    std::memcpy(&v, x, static_cast<size_t>(n) * 4);
  }
  // The second operand wins where the first is NaN.
  return max(v, set1(kMinusInfinity));
}

void block_max(const float* x, int64_t n, float* out) {
  for (int64_t begin = 0; begin < n; begin += kRowBlock) {
    const int64_t end = min(n, begin + kRowBlock);
    F best0 = set1(kMinusInfinity), best1 = best0;
    for (int64_t i = begin; i < end; i += 2 * kLanes) {
      best0 = max(load_logits(x + i, end - i), best0);
      if (i + kLanes < end) best1 = max(load_logits(x + i + kLanes, end - i - kLanes), best1);
    }
    *out++ = reduce_max(max(best0, best1));
  }
}

void exp_weights(const float* x, int64_t n, float max_value, float scale, float* weights, double* sums) {
  for (int64_t begin = 0; begin < n; begin += kRowBlock) {
    const int64_t end = min(n, begin + kRowBlock);
    F sum{};
    for (int64_t i = begin; i < end; i += kLanes) {
      const F w = exp((load_logits(x + i, end - i) - max_value) * scale);
      if (weights) {
        if (end - i >= kLanes) {
          store(weights + i, w);
        } else {
          store_n(weights + i, w, end - i);
        }
      }
      sum += w;
    }
    *sums++ = static_cast<double>(reduce_add(sum));
  }
}

int64_t total_of(I counts) {
  int64_t total = 0;
  for (int lane = 0; lane < kLanes; lane++) total += counts[lane];
  return total;
}

int64_t sum_above(const float* weights, int64_t n, float threshold, double* sums) {
  I counts{};
  for (int64_t begin = 0; begin < n; begin += kRowBlock) {
    const int64_t end = min(n, begin + kRowBlock);
    F sum0{}, sum1{};
    for (int64_t i = begin; i < end; i += 2 * kLanes) {
      const F w0 = end - i >= kLanes ? load(weights + i) : load_n(weights + i, end - i);
      const int64_t rest = end - i - kLanes;
      const F w1 = rest >= kLanes ? load(weights + i + kLanes) : load_n(weights + i + kLanes, max(rest, int64_t{0}));
      const I greater0 = w0 > threshold, greater1 = w1 > threshold;
      sum0 += greater0 ? w0 : F{};
      sum1 += greater1 ? w1 : F{};
      counts -= greater0 + greater1;
    }
    *sums++ = static_cast<double>(reduce_add(sum0 + sum1));
  }
  return total_of(counts);
}

int64_t count_above(const float* x, int64_t n, float threshold) {
  I counts{};
  for (int64_t i = 0; i < n; i += kLanes) counts -= load_logits(x + i, n - i) > threshold;
  return total_of(counts);
}

}  // namespace

void use_row_kernels(KernelTable& table) {
  static constexpr RowKernels kRowKernels{block_max, exp_weights, sum_above, count_above};
  table.rows = &kRowKernels;
}

}  // namespace bao::BAO_ISA
