// Searches in a row of logits or weights without sorting the vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "row_kernels.h"

namespace bao {

constexpr float kMinusInfinity = -__builtin_inff();

// NaN logits count as -infinity everywhere.
inline float logit_key(float x) { return x == x ? x : kMinusInfinity; }

// A row with the maxima of its blocks of kRowBlock.
struct LogitsView {
  const float* x;
  int64_t n;
  const float* block_max;
};

float max_of(const LogitsView& row);

// The lowest index of a value that is in the row.
int32_t index_of(const LogitsView& row, float value);

// The k-th greatest value, 1 <= k <= n. work holds n floats.
float kth_greatest(const LogitsView& row, int64_t k, float* work);

// Writes the indices of values >= cutoff, ascending, and the values; returns their number. Room for n of each.
int64_t compact_at_least(const LogitsView& row, float cutoff, int32_t* ids, float* values);

// The smallest set of the greatest weights whose sum reaches `target`: all above the threshold and the first `ties` of those equal to it.
struct Nucleus {
  float threshold;
  int64_t ties;
};

// weights lie in [0, 1]; `target` is positive. work holds n floats, block_sums one number a block.
Nucleus find_nucleus(const RowKernels& kernels, const float* weights, int64_t n, double target, float* work, double* block_sums);

// Index i with probability weights[i] / sum, by inversion of the cumulative sum at `uniform` in [0, 1). Never an index of weight 0
// unless all are.
int64_t draw(const float* weights, int64_t n, const double* block_sums, double uniform);

double sum_of_blocks(const double* block_sums, int64_t n);

// Takes parts of one allocation.
class Arena {
 public:
  explicit Arena(void* base) : next_(static_cast<unsigned char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    unsigned char* part = next_;
    next_ += bytes<T>(count);
    return reinterpret_cast<T*>(part);
  }

  // What `take` uses up: whole cache lines.
  template <class T>
  static constexpr size_t bytes(int64_t count) {
    return static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
  }

 private:
  unsigned char* next_;
};

}  // namespace bao
