// What sampling and log probabilities need of a row of logits, compiled once per instruction set. Rows are taken in blocks of
// fixed size, so that sums have one order and a search can skip blocks.
#pragma once

#include <cstdint>

namespace bao {

constexpr int64_t kRowBlock = 256;

struct RowKernels {
  // block_max[b]: the greatest value of block b; -infinity for a block of NaN and -infinity.
  void (*block_max)(const float* x, int64_t n, float* block_max);
  // weights[i] = exp((x[i] - max) * scale), 0 for NaN; block_sums[b] is the sum of block b. weights may be null.
  void (*exp_weights)(const float* x, int64_t n, float max, float scale, float* weights, double* block_sums);
  // block_sums[b]: the sum of block b's weights greater than the threshold. Returns their number in the row.
  int64_t (*sum_above)(const float* weights, int64_t n, float threshold, double* block_sums);
  // How many values are greater than the threshold.
  int64_t (*count_above)(const float* x, int64_t n, float threshold);
};

}  // namespace bao
