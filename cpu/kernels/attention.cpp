// Paged attention with online softmax (Dao et al., FlashAttention-2; the split over keys is Flash-Decoding's).
//
// A work item is a tile of queries of one sequence and the heads that share one KV head; its rows are (query, head). Keys are
// taken in tiles of kKeyTile, grouped into ranges of kKeyRange, both at absolute positions. A row's result over a range starts
// from nothing; ranges are merged in order. That makes a row's arithmetic a function of its own query and keys only: not of the
// batch, of the chunking of the prompt, or of how items or ranges are spread over threads.
#include "attention_items.h"
#include "attention_softmax.h"
#include "attention_tile.h"

namespace bao::BAO_ISA {
namespace {

struct Scratch {
  Scratch(const PagedAttentionArgs& a, void* memory) {
    const int64_t group = a.num_heads / a.num_kv_heads;
    const int64_t rows = attention_item_rows(group) + 16;
    dim = padded_head_dim(a.head_dim);
    float* p = static_cast<float*>(memory);
    const auto take = [&p](int64_t floats) {
      float* begin = p;
      p += floats;
      return begin;
    };
    queries = take(rows * dim);
    scores = take(rows * kKeyTile);
    range = {take(rows), take(rows), take(rows * dim)};
    total = {take(rows), take(rows), take(rows * dim)};
    keys = take(kKeyTile * dim);
    values = take(kKeyTile * dim);
  }

  int64_t dim;
  // [rows][dim], scaled
  float* queries;
  // [rows][kKeyTile], scores and then probabilities
  float* scores;
  State range;
  State total;
  // [head_dim][kKeyTile] and [kKeyTile][dim], where a tile is converted once for many rows
  float* keys;
  float* values;
};

template <class T>
class Attention {
 public:
  Attention(const PagedAttentionArgs& a, void* scratch)
      : a_(a),
        group_(a.num_heads / a.num_kv_heads),
        block_elements_(kv_block_elements(a.num_kv_heads, a.head_dim, a.block_size)),
        s_(a, scratch) {}

  // `upcoming`, if there is one, is run next: its first keys and values are asked for while this item's last ones are multiplied.
  void run(const Item& item, const Item* upcoming) {
    upcoming_ = upcoming;
    load_queries(item);
    const int64_t first = item.range_begin(a_);
    // One range needs no merging: what that would add are zeros.
    if (item.range_end() - first == 1) {
      attend_range(item, first);
      return finish(item, s_.range);
    }
    clear(s_.total, rows_, s_.dim);
    for (int64_t range = first; range < item.range_end(); range++) {
      attend_range(item, range);
      merge(s_.total, s_.range, rows_, s_.dim);
    }
    finish(item, s_.total);
  }

  // A partial result: maxima, sums, values.
  void run_range(const Item& item, int64_t range, float* partial) {
    load_queries(item);
    attend_range(item, range);
    const State out = partial_state(partial);
    std::memcpy(out.maximum, s_.range.maximum, bytes(rows_));
    std::memcpy(out.sum, s_.range.sum, bytes(rows_));
    std::memcpy(out.values, s_.range.values, bytes(rows_ * s_.dim));
  }

  void merge_partials(const Item& item, float* partials, int64_t stride) {
    rows_ = item.num_queries * group_;
    clear(s_.total, rows_, s_.dim);
    for (int64_t range = item.range_begin(a_); range < item.range_end(); range++) {
      merge(s_.total, partial_state(partials), rows_, s_.dim);
      partials += stride;
    }
    finish(item, s_.total);
  }

 private:
  static size_t bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

  State partial_state(float* partial) const {
    const int64_t rows = attention_item_rows(group_);
    return {partial, partial + rows, partial + 2 * rows};
  }

  void load_queries(const Item& item) {
    rows_ = item.num_queries * group_;
    for (int64_t row = 0; row < rows_; row++) {
      const float* q = a_.q + (item.query + row / group_) * a_.ld_q + (item.kv_head * group_ + row % group_) * a_.head_dim;
      float* out = s_.queries + row * s_.dim;
      int64_t d = 0;
      for (; d + kLanes <= a_.head_dim; d += kLanes) store(out + d, load(q + d) * a_.scale);
      if (d < a_.head_dim) store_n(out + d, load_n(q + d, a_.head_dim - d) * a_.scale, a_.head_dim - d);
    }
  }

  void attend_range(const Item& item, int64_t range) {
    clear(s_.range, rows_, s_.dim);
    const int64_t begin = max(item.key_begin(a_), range * kKeyRange);
    const int64_t end = min(item.key_end(), (range + 1) * kKeyRange);
    // Converting a tile once pays from some rows on; blocks that don't hold whole groups are gathered always.
    const bool direct = rows_ <= 2 * kTileRows && a_.block_size % kGroup == 0;
    Tile now = direct ? tile_at(item, begin / kKeyTile * kKeyTile, begin, end) : Tile{};
    for (int64_t tile = begin / kKeyTile * kKeyTile; tile < end; tile += kKeyTile) {
      const int64_t first = max(begin, tile), last = min(end, tile + kKeyTile);
      if (direct) {
        const Tile next = tile_after(item, tile);
        score<true>(tile, first, last, now.keys, a_.block_size, Coming<T>{now.values, next.key_areas});
        softmax(item, tile);
        add_values<true>(item, tile, now.values, Coming<T>{next.key_areas, next.values});
        now = next;
      } else {
        stage(item, tile, first, last);
        score<false>(tile, first, last, staged(s_.keys, kGroup), kKeyTile, Coming<float>{});
        softmax(item, tile);
        add_values<false>(item, tile, staged(s_.values, kGroup * s_.dim), Coming<float>{});
      }
    }
  }

  // Where a tile's groups lie: keys [head_dim][block_size] from the group's column on, values [block_size][dim] from its row on, and as
  // much of the block's keys as is the group's share, in one stretch.
  struct Tile {
    Groups<T> keys, key_areas, values;
  };

  // Of the groups between two keys of the tile; nullptr for the others.
  Tile tile_at(const Item& item, int64_t tile, int64_t first, int64_t last) const {
    Tile groups{};
    for (int64_t key = first / kGroup * kGroup; key < min(last, tile + kKeyTile); key += kGroup) {
      const int64_t g = (key - tile) / kGroup, row = key % a_.block_size;
      const T* keys = keys_of(item, key);
      groups.keys.of[g] = keys + row;
      groups.key_areas.of[g] = keys + row * a_.head_dim;
      groups.values.of[g] = values_of(item, keys) + row * s_.dim;
    }
    return groups;
  }
  // What is read next; the groups of a last tile are nullptr.
  Tile tile_after(const Item& item, int64_t tile) const {
    tile += kKeyTile;
    if (tile < item.key_end() || !upcoming_) return tile_at(item, tile, tile, item.key_end());
    const int64_t begin = upcoming_->key_begin(a_);
    return tile_at(*upcoming_, begin / kKeyTile * kKeyTile, begin, upcoming_->key_end());
  }
  static Groups<float> staged(const float* tile, int64_t stride) {
    Groups<float> groups{};
    for (int64_t g = 0; g < kKeyTile / kGroup; g++) groups.of[g] = tile + g * stride;
    return groups;
  }

  // Of the block of a key, and the item's head: keys [head_dim][block_size], values [block_size][dim].
  const T* keys_of(const Item& item, int64_t key) const {
    const int64_t block = a_.block_tables[item.sequence * a_.ld_block_table + key / a_.block_size];
    return static_cast<const T*>(a_.kv_cache) + block * block_elements_ + item.kv_head * a_.head_dim * a_.block_size;
  }
  const T* values_of(const Item& item, const T* keys) const {
    return keys + ((a_.num_kv_heads - item.kv_head) * a_.head_dim + item.kv_head * s_.dim) * a_.block_size;
  }

  template <bool Ahead, class K, class C>
  void score(int64_t tile, int64_t first, int64_t last, const Groups<K>& keys, int64_t ld_keys, const Coming<C>& coming) {
    const int64_t begin = (first - tile) / kGroup, end = ceil_div(last - tile, kGroup);
    for (int64_t row = 0; row < rows_; row += kTileRows) {
      with_rows<kTileRows>(rows_ - row, [&](auto count) {
        score_groups<count(), Ahead>(s_.queries + row * s_.dim, s_.dim, keys, ld_keys, a_.head_dim, begin, end,
                                     s_.scores + row * kKeyTile, coming);
      });
    }
  }

  // A row takes only the keys that it sees: another's value may be infinite, and 0 times that is no number. Rows of a register
  // tile share the keys that all of them see; the few before and after are each row's own.
  template <bool Ahead, class V, class C>
  void add_values(const Item& item, int64_t tile, const Groups<V>& values, const Coming<C>& coming) {
    const auto add = [&](auto count, int64_t row, int64_t begin, int64_t end) {
      if (begin >= end) return;
      value_columns<count(), tile_vectors<count()>, Ahead>(s_.scores + row * kKeyTile, values, s_.dim, begin, end, 0,
                                                            s_.range.values + row * s_.dim, coming);
    };
    constexpr std::integral_constant<int, 1> kOne{};
    for (int64_t first = 0; first < rows_; first += kTileRows) {
      const int64_t rows = min(kTileRows, rows_ - first);
      const int64_t begin = span_begin(item, first + rows - 1, tile);
      const int64_t end = max(begin, span_end(item, first, tile));
      for (int64_t row = first; row < first + rows; row++) {
        add(kOne, row, span_begin(item, row, tile), min(begin, span_end(item, row, tile)));
      }
      with_rows<kTileRows>(rows, [&](auto count) { add(count, first, begin, min(end, span_end(item, first, tile))); });
      for (int64_t row = first; row < first + rows; row++) {
        add(kOne, row, max(end, span_begin(item, row, tile)), span_end(item, row, tile));
      }
    }
  }

  // The keys of a tile that a row sees, from its query's position.
  int64_t span_begin(const Item& item, int64_t row, int64_t tile) const {
    if (a_.sliding_window == 0) return 0;
    return min(kKeyTile, max(0, item.position + row / group_ - a_.sliding_window + 1 - tile));
  }
  int64_t span_end(const Item& item, int64_t row, int64_t tile) const {
    return max(0, min(kKeyTile, item.position + row / group_ + 1 - tile));
  }

  void stage(const Item& item, int64_t tile, int64_t first, int64_t last) {
    while (first < last) {
      const int64_t end = min(last, (first / a_.block_size + 1) * a_.block_size);
      const int64_t count = end - first;
      const int64_t row = first % a_.block_size;
      const T* keys = keys_of(item, first);
      const T* values = values_of(item, keys) + row * s_.dim;
      float* out = s_.keys + (first - tile);
      int64_t i = 0;
      for (; i + kLanes <= count; i += kLanes) stage_vectors(keys + row + i, a_.block_size, a_.head_dim, out + i, kKeyTile);
      for (int64_t d = 0; i < count && d < a_.head_dim; d++) {
        store_n(out + d * kKeyTile + i, load_n(keys + d * a_.block_size + row + i, count - i), count - i);
      }
      stage_vectors(values, kLanes, count * s_.dim / kLanes, s_.values + (first - tile) * s_.dim, kLanes);
      first = end;
    }
  }
  // `count` vectors, ld apart, to ones that are ld_out apart.
  static void stage_vectors(const T* from, int64_t ld, int64_t count, float* out, int64_t ld_out) {
    constexpr int kTogether = kWidened<T>;
    for (; count >= kTogether; count -= kTogether, from += kTogether * ld, out += kTogether * ld_out) {
      F w[kTogether];
      load_vectors<kTogether>(from, ld, w);
      BAO_UNROLL
      for (int v = 0; v < kTogether; v++) store(out + v * ld_out, w[v]);
    }
    for (; count > 0; count--, from += ld, out += ld_out) store(out, load(from));
  }

  // Scores of one tile become probabilities relative to each row's new maximum; sums and values so far are rescaled to it.
  void softmax(const Item& item, int64_t tile) {
    for (int64_t row = 0; row < rows_; row++) {
      const int64_t begin = span_begin(item, row, tile), end = span_end(item, row, tile);
      float* scores = s_.scores + row * kKeyTile;
      if (begin >= end) continue;
      softmax_row(scores, static_cast<int32_t>(begin), static_cast<int32_t>(end), a_.soft_cap, s_.range.maximum[row], s_.range.sum[row],
                  s_.range.values + row * s_.dim, s_.dim);
    }
  }

  void finish(const Item& item, const State& state) {
    for (int64_t row = 0; row < rows_; row++) {
      const int64_t head = item.kv_head * group_ + row % group_;
      float sum = state.sum[row], factor = 1.0f;
      if (a_.sinks) {
        const float maximum = max(state.maximum[row], a_.sinks[head]);
        factor = exp(state.maximum[row] - maximum);
        sum = sum * factor + exp(a_.sinks[head] - maximum);
      }
      factor = sum > 0 ? factor / sum : 0.0f;
      const float* values = state.values + row * s_.dim;
      float* out = a_.out + (item.query + row / group_) * a_.ld_out + head * a_.head_dim;
      for (int64_t d = 0; d < a_.head_dim; d += kLanes) {
        const F result = load(values + d) * factor;
        if (d + kLanes <= a_.head_dim) {
          store(out + d, result);
        } else {
          store_n(out + d, result, a_.head_dim - d);
        }
      }
    }
  }

  const PagedAttentionArgs& a_;
  const int64_t group_;
  const int64_t block_elements_;
  Scratch s_;
  int64_t rows_ = 0;
  const Item* upcoming_ = nullptr;
};

template <class T>
void attend(const PagedAttentionArgs& a, const ChunkContext& c) {
  Attention<T> attention(a, c.scratch);
  Items items(a);
  Item item;
  if (!splits(a, c.num_threads)) {
    bool found = items.find(c.next_item(), item);
    while (found) {
      Item upcoming;
      found = items.find(c.next_item(), upcoming);
      attention.run(item, found ? &upcoming : nullptr);
      item = upcoming;
    }
    return;
  }
  const int64_t stride = attention_partial_floats(a.num_heads / a.num_kv_heads, a.head_dim);
  int64_t mine = c.next_item(), partial = 0;
  for (int64_t number = 0; items.find(number, item); number++) {
    for (int64_t range = item.range_begin(a); range < item.range_end(); range++, partial++) {
      if (partial != mine) continue;
      attention.run_range(item, range, static_cast<float*>(c.workspace) + partial * stride);
      mine = c.next_item();
    }
  }
}

template <class T>
void merge_split(const PagedAttentionArgs& a, const ChunkContext& c) {
  if (!splits(a, c.num_threads)) return;
  Attention<T> attention(a, c.scratch);
  Items items(a);
  Item item;
  const int64_t stride = attention_partial_floats(a.num_heads / a.num_kv_heads, a.head_dim);
  int64_t mine = c.next_item();
  float* partials = static_cast<float*>(c.workspace);
  for (int64_t number = 0; items.find(number, item); number++) {
    if (number == mine) {
      attention.merge_partials(item, partials, stride);
      mine = c.next_item();
    }
    partials += max(0, item.range_end() - item.range_begin(a)) * stride;
  }
}

}  // namespace

static void paged_attention(const PagedAttentionArgs& a, const ChunkContext& c) {
  with_cache_dtype(a.cache_dtype, [&](auto* type) { attend<std::remove_pointer_t<decltype(type)>>(a, c); });
}

static void merge_attention(const PagedAttentionArgs& a, const ChunkContext& c) {
  with_cache_dtype(a.cache_dtype, [&](auto* type) { merge_split<std::remove_pointer_t<decltype(type)>>(a, c); });
}

void use_attention(KernelTable& table) {
  table.paged_attention = paged_attention;
  table.merge_attention = merge_attention;
}

}  // namespace bao::BAO_ISA
