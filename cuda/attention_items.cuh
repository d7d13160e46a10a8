// How a batch's attention is cut into pieces for blocks: items of rows, and ranges of keys where there are few items. See attention.cu.
#pragma once

#include "attention.h"

namespace bao {

// Keys are taken in ranges at absolute positions: short ones first, so that a decode step with few keys has work for many blocks, then long ones, so
// that partial results of long contexts stay few. Both are whole tiles.
constexpr int kShortRange = 128, kLongRange = 512, kShortRanges = 16;
constexpr int kShortKeys = kShortRange * kShortRanges;

__device__ inline int range_of(int key) {
  return key < kShortKeys ? key / kShortRange : kShortRanges + (key - kShortKeys) / kLongRange;
}
__device__ inline int range_start(int range) {
  return range < kShortRanges ? range * kShortRange : kShortKeys + (range - kShortRanges) * kLongRange;
}

struct Item {
  int seq, kv_head, first_row, num_rows, query_start, first_position;

  __device__ int position(int row, int group) const { return first_position + (first_row + row) / group; }
  __device__ int key_begin(const AttentionArgs& a, int group) const { return first_key(position(0, group), a); }
  // Warps that have rows; so many partials has a range.
  __device__ int num_warps() const { return (num_rows + 15) / 16; }
  __device__ int key_end(int group) const { return max(0, position(num_rows - 1, group) + 1); }
  __device__ int range_begin(const AttentionArgs& a, int group) const { return range_of(key_begin(a, group)); }
  __device__ int num_ranges(const AttentionArgs& a, int group) const {
    return max(1, range_of(key_end(group) - 1) + 1 - range_begin(a, group));
  }

 private:
  __device__ static int max(int x, int y) { return x > y ? x : y; }
};

// Walks the items of the batch in their fixed order; asked for ascending numbers only.
template <int kRows>
class Items {
 public:
  __device__ Items(const AttentionArgs& a, Global<const int32_t> query_start_loc, Global<const int32_t> seq_lens)
      : a_(a), query_start_loc_(query_start_loc), seq_lens_(seq_lens), group_(a.num_heads / a.num_kv_heads) {}

  __device__ bool find(int64_t number, Item& item) {
    for (; seq_ < a_.num_seqs; seq_++) {
      const int64_t tiles = num_tiles(seq_);
      if (number < base_ + tiles * a_.num_kv_heads) {
        const int64_t index = number - base_;
        // The last tile first: it sees the most keys.
        item = at(seq_, static_cast<int>(tiles - 1 - index / a_.num_kv_heads), static_cast<int>(index % a_.num_kv_heads));
        return true;
      }
      base_ += tiles * a_.num_kv_heads;
    }
    return false;
  }

  // Whether blocks share out ranges rather than items: only for few items with long contexts, whose partials there is room for.
  __device__ bool split(int num_blocks, int64_t max_partials) const {
    int64_t count = 0, partials = 0;
    bool has_ranges = false;
    for (int seq = 0; seq < a_.num_seqs; seq++) {
      const int tiles = num_tiles(seq);
      count += static_cast<int64_t>(tiles) * a_.num_kv_heads;
      if (count >= num_blocks) return false;
      for (int tile = 0; tile < tiles; tile++) {
        const Item item = at(seq, tile, 0);
        const int ranges = item.num_ranges(a_, group_);
        has_ranges = has_ranges || ranges > 1;
        partials += static_cast<int64_t>(ranges) * item.num_warps() * a_.num_kv_heads;
      }
    }
    return has_ranges && partials <= max_partials;
  }

 private:
  __device__ int num_tiles(int seq) const {
    return ((query_start_loc_[seq + 1] - query_start_loc_[seq]) * group_ + kRows - 1) / kRows;
  }
  __device__ Item at(int seq, int tile, int kv_head) const {
    const int start = query_start_loc_[seq], queries = query_start_loc_[seq + 1] - start;
    const int left = queries * group_ - tile * kRows;
    return {seq, kv_head, tile * kRows, left < kRows ? left : kRows, start, seq_lens_[seq] - queries};
  }

  const AttentionArgs& a_;
  Global<const int32_t> query_start_loc_, seq_lens_;
  int group_, seq_ = 0;
  int64_t base_ = 0;
};

}  // namespace bao
