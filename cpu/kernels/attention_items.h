// What attention's threads share out: work items, or ranges of their keys.
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {
namespace {

// One tile of queries and one KV head.
struct Item {
  int64_t sequence;
  int64_t kv_head;
  // Row of q of its first query, number of queries, position of the first.
  int64_t query;
  int64_t num_queries;
  int64_t position;
  // Query heads of a KV head. Rows are the heads of the first query, then those of the next.
  int64_t group;

  int64_t key_begin(const PagedAttentionArgs& a) const {
    return a.sliding_window > 0 ? max(0, position - a.sliding_window + 1) : 0;
  }
  int64_t key_end() const { return max(0, position + num_queries); }
  int64_t range_begin(const PagedAttentionArgs& a) const { return key_begin(a) / kKeyRange; }
  int64_t range_end() const { return ceil_div(key_end(), kKeyRange); }

  int64_t rows() const { return num_queries * group; }
  const float* query_of(const PagedAttentionArgs& a, int64_t row) const {
    return a.q + (query + row / group) * a.ld_q + (kv_head * group + row % group) * a.head_dim;
  }
  // The keys of a tile that a row sees, from its query's position.
  int64_t span_begin(const PagedAttentionArgs& a, int64_t row, int64_t tile) const {
    if (a.sliding_window == 0) return 0;
    return min(kKeyTile, max(0, position + row / group - a.sliding_window + 1 - tile));
  }
  int64_t span_end(int64_t row, int64_t tile) const {
    return max(0, min(kKeyTile, position + row / group + 1 - tile));
  }
};

static int64_t group_of(const PagedAttentionArgs& a) { return a.num_heads / a.num_kv_heads; }

// Rows that there is scratch memory for: those of an item, in whole register tiles.
static int64_t scratch_rows(const PagedAttentionArgs& a) { return round_up(attention_item_rows(group_of(a)), 16); }

// Walks the batch's items in their fixed order; asked for ascending numbers only.
class Items {
 public:
  explicit Items(const PagedAttentionArgs& a) : a_(a), group_(group_of(a)), queries_per_item_(max(1, kAttentionRows / group_)) {}

  bool find(int64_t number, Item& item) {
    while (sequence_ < a_.num_seqs) {
      const int64_t count = count_of(sequence_);
      if (number < base_ + count) {
        item = make(number - base_);
        return true;
      }
      base_ += count;
      sequence_++;
    }
    return false;
  }

 private:
  int64_t num_queries(int64_t sequence) const {
    return max(0, static_cast<int64_t>(a_.query_start_loc[sequence + 1]) - a_.query_start_loc[sequence]);
  }
  int64_t count_of(int64_t sequence) const {
    return ceil_div(num_queries(sequence), queries_per_item_) * a_.num_kv_heads;
  }
  // The last queries come first: they see the most keys, and short items at the end even the threads out.
  Item make(int64_t index) const {
    const int64_t queries = num_queries(sequence_);
    const int64_t tile = ceil_div(queries, queries_per_item_) - 1 - index / a_.num_kv_heads;
    const int64_t first = tile * queries_per_item_;
    return {sequence_, index % a_.num_kv_heads, a_.query_start_loc[sequence_] + first,
            min(queries_per_item_, queries - first), a_.seq_lens[sequence_] - queries + first, group_};
  }

  const PagedAttentionArgs& a_;
  const int64_t group_, queries_per_item_;
  int64_t sequence_ = 0;
  int64_t base_ = 0;
};

// Whether ranges of keys, rather than items, are what threads share: only for few items with long contexts.
bool splits(const PagedAttentionArgs& a, int64_t num_threads) {
  if (a.max_partials == 0) return false;
  Items items(a);
  Item item;
  int64_t count = 0, partials = 0;
  for (; count < 2 * num_threads && items.find(count, item); count++) {
    partials += max(0, item.range_end() - item.range_begin(a));
  }
  return count < 2 * num_threads && partials > count && partials <= a.max_partials;
}

}  // namespace
}  // namespace bao::BAO_ISA
