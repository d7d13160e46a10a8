#include "row_select.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace bao {

namespace {

// Few enough to sort at once.
constexpr int64_t kSmallSet = 128;
// Where the first cut of a nucleus search falls: on text the mass of what is less likely than a thousandth of the best is small.
constexpr float kFirstPivot = 0x1p-10f;

uint32_t float_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

float bits_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Keeps the weights in (above, upto]; `from` may be `to`.
int64_t keep_between(const float* from, int64_t n, float above, float upto, float* to) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) {
    const float w = from[i];
    to[count] = w;
    count += (w > above) & (w <= upto);
  }
  return count;
}

}  // namespace

double sum_of_blocks(const double* block_sums, int64_t n) {
  double total = 0;
  for (int64_t block = 0; block < ceil_div(n, kRowBlock); block++) total += block_sums[block];
  return total;
}

float max_of(const LogitsView& row) {
  return *std::max_element(row.block_max, row.block_max + ceil_div(row.n, kRowBlock));
}

int32_t index_of(const LogitsView& row, float value) {
  for (int64_t block = 0; block < ceil_div(row.n, kRowBlock); block++) {
    if (row.block_max[block] < value) continue;
    const int64_t end = std::min(row.n, (block + 1) * kRowBlock);
    for (int64_t i = block * kRowBlock; i < end; i++) {
      if (logit_key(row.x[i]) == value) return static_cast<int32_t>(i);
    }
  }
  return 0;
}

float kth_greatest(const LogitsView& row, int64_t k, float* work) {
  const int64_t blocks = ceil_div(row.n, kRowBlock);
  float bound = kMinusInfinity;
  // The k-th greatest maximum of a block is no greater than the k-th greatest value, and near it while most blocks stay out.
  if (k <= blocks / 2) {
    std::copy_n(row.block_max, blocks, work);
    std::nth_element(work, work + (k - 1), work + blocks, std::greater<float>());
    bound = work[k - 1];
  }
  int64_t count = 0;
  for (int64_t block = 0; block < blocks; block++) {
    if (row.block_max[block] < bound) continue;
    const int64_t end = std::min(row.n, (block + 1) * kRowBlock);
    for (int64_t i = block * kRowBlock; i < end; i++) {
      const float value = logit_key(row.x[i]);
      work[count] = value;
      count += value >= bound;
    }
  }
  std::nth_element(work, work + (k - 1), work + count, std::greater<float>());
  return work[k - 1];
}

int64_t compact_at_least(const LogitsView& row, float cutoff, int32_t* ids, float* values) {
  int64_t count = 0;
  for (int64_t block = 0; block < ceil_div(row.n, kRowBlock); block++) {
    if (row.block_max[block] < cutoff) continue;
    const int64_t end = std::min(row.n, (block + 1) * kRowBlock);
    for (int64_t i = block * kRowBlock; i < end; i++) {
      const float value = logit_key(row.x[i]);
      ids[count] = static_cast<int32_t>(i);
      values[count] = value;
      count += value >= cutoff;
    }
  }
  return count;
}

// Bisects the bits of the threshold (for positive floats they order as the values do, and halve the exponents first). Weights in
// (low, high] are undecided: the greater ones sum to `above` < target, and with the undecided ones reach it, but for rounding.
// `set` holds the undecided and some others until it is worth a copy. Weights of 0 are never in the nucleus.
Nucleus find_nucleus(const RowKernels& kernels, const float* weights, int64_t n, double target, float* work, double* block_sums) {
  const float* set = weights;
  int64_t count = n;
  // Mass and number of the set's weights above `high`, number above `low`.
  double above = 0;
  int64_t above_high = 0, above_low = n;
  uint32_t low = 0, high = float_bits(1.0f);
  // Mass of what is no longer in the set because it is above `high`.
  double dropped = 0;
  for (uint32_t middle = float_bits(kFirstPivot); high - low > 1; middle = low + (high - low) / 2) {
    const int64_t undecided = above_low - above_high;
    if (undecided <= count / 4 || undecided <= kSmallSet) {
      count = keep_between(set, count, bits_float(low), bits_float(high), work);
      set = work;
      dropped = above;
      above_high = 0;
      above_low = count;
      if (count <= kSmallSet) break;
    }
    const int64_t above_middle = kernels.sum_above(set, count, bits_float(middle), block_sums);
    const double mass = dropped + sum_of_blocks(block_sums, count);
    if (mass >= target) {
      low = middle;
      above_low = above_middle;
    } else {
      above = mass;
      high = middle;
      above_high = above_middle;
    }
  }
  count = keep_between(set, count, bits_float(low), bits_float(high), work);
  std::sort(work, work + count, std::greater<float>());
  int64_t taken = 0;
  while (taken < count && above < target) above += work[taken++];
  // Rounding kept the sum below the target: every weight that can be drawn belongs to it.
  if (taken == 0) return {0.0f, 0};
  const float threshold = work[taken - 1];
  const float* first_tie = std::lower_bound(work, work + taken, threshold, std::greater<float>());
  return {threshold, work + taken - first_tie};
}

int64_t draw(const float* weights, int64_t n, const double* block_sums, double uniform) {
  const double target = uniform * sum_of_blocks(block_sums, n);
  double cumulative = 0;
  int64_t chosen_block = 0;
  for (int64_t block = 0; block < ceil_div(n, kRowBlock); block++) {
    if (!(block_sums[block] > 0)) continue;
    chosen_block = block;
    if (target < cumulative + block_sums[block]) break;
    cumulative += block_sums[block];
  }
  // The block's sum and its running sum round differently: past its end means its last possible index.
  int64_t chosen = chosen_block * kRowBlock;
  for (int64_t i = chosen; i < std::min(n, (chosen_block + 1) * kRowBlock); i++) {
    if (!(weights[i] > 0)) continue;
    chosen = i;
    cumulative += static_cast<double>(weights[i]);
    if (target < cumulative) break;
  }
  return chosen;
}

}  // namespace bao
