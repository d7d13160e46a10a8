// What attention's threads share out: work items, or ranges of their keys.
#pragma once

#include "attention_softmax.h"

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
  // f(row, its place in q, its head).
  template <class Fn>
  BAO_INLINE_MEMBER void for_each_row(Fn f) const {
    for (int64_t i = 0, row = 0; i < num_queries; i++) {
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++, row++) f(row, query + i, head);
    }
  }
  // Of so many keys from `base` on those that each row sees, from its query's position.
  void see(const PagedAttentionArgs& a, int64_t base, int64_t keys, const RowSpans& spans) const {
    int64_t row = 0;
    for (int64_t seen = position + 1 - base; row < rows(); seen++) {
      const int64_t first = a.sliding_window > 0 ? min(keys, max(0, seen - a.sliding_window)) : 0;
      const int64_t last = max(0, min(keys, seen));
      for (const int64_t next = row + group; row < next; row++) {
        spans.begin[row] = static_cast<int32_t>(first);
        spans.end[row] = static_cast<int32_t>(last);
      }
    }
  }
};

static int64_t group_of(const PagedAttentionArgs& a) { return a.num_heads / a.num_kv_heads; }

// Rows that there is scratch memory for: those of an item, in whole register tiles.
static int64_t scratch_rows(const PagedAttentionArgs& a) { return round_up(attention_item_rows(group_of(a), kManyAttentionRows), 16); }

// Queries and results lie far apart, each in pages of its own: those of so many queries further are asked for.
constexpr int64_t kQueriesAhead = 4;

// Items have many rows only where each thread gets so many of them.
constexpr int64_t kItemsPerThread = 8;

// Walks the batch's items in their fixed order; asked for ascending numbers only.
class Items {
 public:
  Items(const PagedAttentionArgs& a, int64_t num_threads) : a_(a), group_(group_of(a)), queries_per_item_(queries_per_item(num_threads)) {}

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
  int64_t queries_per_item(int64_t num_threads) const {
    const int64_t queries = static_cast<int64_t>(a_.query_start_loc[a_.num_seqs]) - a_.query_start_loc[0];
    const int64_t few = max(1, kFewAttentionRows / group_), many = max(1, kManyAttentionRows / group_);
    return queries * a_.num_kv_heads >= many * kItemsPerThread * num_threads ? many : few;
  }
  int64_t num_queries(int64_t sequence) const {
    return max(0, static_cast<int64_t>(a_.query_start_loc[sequence + 1]) - a_.query_start_loc[sequence]);
  }
  int64_t count_of(int64_t sequence) const {
    return ceil_div(num_queries(sequence), queries_per_item_) * a_.num_kv_heads;
  }
  // Items of a head are neighbours, so that its keys and values stay in a cache. Of each head the last queries come first: they see the
  // most keys, and short items at the end even the threads out.
  Item make(int64_t index) const {
    const int64_t queries = num_queries(sequence_), tiles = ceil_div(queries, queries_per_item_);
    const int64_t first = (tiles - 1 - index % tiles) * queries_per_item_;
    return {sequence_, index / tiles, a_.query_start_loc[sequence_] + first,
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
  Items items(a, num_threads);
  Item item;
  int64_t count = 0, partials = 0;
  for (; count < 2 * num_threads && items.find(count, item); count++) {
    partials += max(0, item.range_end() - item.range_begin(a));
  }
  return count < 2 * num_threads && partials > count && partials <= a.max_partials;
}

}  // namespace
}  // namespace bao::BAO_ISA
