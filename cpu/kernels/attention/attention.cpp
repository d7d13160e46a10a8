// Paged attention with online softmax (Dao et al., FlashAttention-2; the split over keys is Flash-Decoding's).
//
// A work item is a tile of queries of one sequence and the heads that share one KV head; its rows are (query, head). Keys are
// taken in tiles of kKeyTile, grouped into ranges of kKeyRange, both at absolute positions. A row's result over a range starts
// from nothing; ranges are merged in order. That makes a row's arithmetic a function of its own query and keys only: not of the
// batch, of the chunking of the prompt, or of how items or ranges are spread over threads.
#include "attention_floats.h"
#include "attention_halves.h"
#include "attention_matrices.h"

namespace bao::BAO_ISA {
namespace {

// Who attends with the rows of an item, by the type of the cache; and whether they take a range of keys at once, or one tile after another.
template <class T>
struct RowsOf {
  using Type = FloatRows<T>;
  static constexpr bool kTakeRanges = false;
};
#if defined(__AVX512FP16__)
template <>
struct RowsOf<Float8E4M3> {
  using Type = HalfRows;
  static constexpr bool kTakeRanges = false;
};
#endif
#if defined(__AMX_BF16__)
template <>
struct RowsOf<BFloat16> {
  using Type = MatrixRows;
  static constexpr bool kTakeRanges = true;
};
#endif

template <class T>
class Attention {
 public:
  Attention(const PagedAttentionArgs& a, void* memory)
      : a_(a),
        block_elements_(kv_block_elements(a.num_kv_heads, a.head_dim, a.block_size)),
        dim_(padded_head_dim(a.head_dim)),
        scratch_(memory),
        rows_(a, scratch_),
        range_(take_state(scratch_, scratch_rows(a), dim_)),
        total_(take_state(scratch_, scratch_rows(a), dim_)),
        in_blocks_(a.block_size % kGroup == 0),
        gathered_(scratch_.take<T>(kGatheredTiles * kKeyTile * (a.head_dim + dim_))) {}

  // `upcoming`, if there is one, is run next: its first keys and values are asked for while this item's last ones are multiplied.
  void run(const Item& item, const Item* upcoming) {
    upcoming_ = upcoming;
    rows_.load_queries(item);
    const int64_t first = item.range_begin(a_);
    // One range needs no merging: what that would add are zeros.
    if (item.range_end() - first == 1) {
      attend_range(item, first);
      return finish(item, range_);
    }
    clear(total_, item.rows(), dim_);
    for (int64_t range = first; range < item.range_end(); range++) {
      attend_range(item, range);
      merge(total_, range_, item.rows(), dim_);
    }
    finish(item, total_);
  }

  // A partial result: maxima, sums, values.
  void run_range(const Item& item, int64_t range, float* partial) {
    rows_.load_queries(item);
    attend_range(item, range);
    const State out = partial_state(partial);
    std::memcpy(out.maximum, range_.maximum, bytes(item.rows()));
    std::memcpy(out.sum, range_.sum, bytes(item.rows()));
    std::memcpy(out.values, range_.values, bytes(item.rows() * dim_));
  }

  void merge_partials(const Item& item, float* partials, int64_t stride) {
    clear(total_, item.rows(), dim_);
    for (int64_t range = item.range_begin(a_); range < item.range_end(); range++) {
      merge(total_, partial_state(partials), item.rows(), dim_);
      partials += stride;
    }
    finish(item, total_);
  }

 private:
  static size_t bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

  State partial_state(float* partial) const {
    const int64_t rows = attention_item_rows(group_of(a_), kFewAttentionRows);
    return {partial, partial + rows, partial + 2 * rows};
  }

  void attend_range(const Item& item, int64_t range) {
    const int64_t base = range * kKeyRange, begin = max(item.key_begin(a_), base), end = min(item.key_end(), base + kKeyRange);
    if constexpr (RowsOf<T>::kTakeRanges) {
      RangeTiles<T> tiles{base, begin, end, {}, {}};
      for (int64_t tile = begin / kKeyTile * kKeyTile; tile < end; tile += kKeyTile) {
        tiles.of[(tile - base) / kKeyTile] = tile_of(item, span_of(tile, begin, end));
      }
      if (in_blocks_) find_next(item, range + 1, tiles.next);
      rows_.attend_range(item, tiles, range_);
    } else {
      clear(range_, item.rows(), dim_);
      Tile<T> now = in_blocks_ ? tile_at(item, begin / kKeyTile * kKeyTile, begin, end) : Tile<T>{};
      for (int64_t tile = begin / kKeyTile * kKeyTile; tile < end; tile += kKeyTile) {
        const KeySpan span = span_of(tile, begin, end);
        if (!in_blocks_) now = gather(item, span);
        const Tile<T> next = in_blocks_ ? tile_after(item, tile) : now;
        rows_.attend_tile(item, span, now, next, range_);
        now = next;
      }
    }
  }
  static KeySpan span_of(int64_t tile, int64_t begin, int64_t end) { return {tile, max(begin, tile), min(end, tile + kKeyTile)}; }

  Tile<T> tile_of(const Item& item, const KeySpan& span) const {
    return in_blocks_ ? tile_at(item, span.tile, span.first, span.last) : gather(item, span);
  }
  // The groups between two keys of a tile where they lie: block sizes are multiples of a group's.
  Tile<T> tile_at(const Item& item, int64_t tile, int64_t first, int64_t last) const {
    Tile<T> groups{};
    groups.ld_keys = a_.block_size;
    for (int64_t key = first / kGroup * kGroup; key < min(last, tile + kKeyTile); key += kGroup) {
      const int64_t g = (key - tile) / kGroup, row = key % a_.block_size;
      const T* keys = keys_of(item, key);
      groups.keys.of[g] = keys + row;
      groups.key_areas.of[g] = keys + row * a_.head_dim;
      groups.values.of[g] = values_of(item, keys) + row * dim_;
    }
    return groups;
  }
  // What is read next.
  Tile<T> tile_after(const Item& item, int64_t tile) const {
    tile += kKeyTile;
    if (tile < item.key_end() || !upcoming_) return tile_at(item, tile, tile, item.key_end());
    const int64_t begin = upcoming_->key_begin(a_);
    return tile_at(*upcoming_, begin / kKeyTile * kKeyTile, begin, upcoming_->key_end());
  }
  // The first two of what is read next, from a range on.
  void find_next(const Item& item, int64_t range, Groups<T>* next) const {
    const bool ends = range >= item.range_end() && upcoming_;
    const Item& following = ends ? *upcoming_ : item;
    if (ends) range = following.range_begin(a_);
    const int64_t begin = max(following.key_begin(a_), range * kKeyRange), end = min(following.key_end(), (range + 1) * kKeyRange);
    const int64_t first = begin / kKeyTile * kKeyTile, second = first + kKeyTile;
    const Tile<T> tile = tile_at(following, first, begin, end);
    next[0] = tile.key_areas;
    next[1] = second < end ? tile_at(following, second, second, end).key_areas : tile.values;
  }
  // A copy, as if it were a block of its own, of keys that lie in blocks of any size.
  Tile<T> gather(const Item& item, const KeySpan& span) const {
    T* const keys_out = gathered_ + span.tile / kKeyTile % kGatheredTiles * kKeyTile * (a_.head_dim + dim_);
    T* const values_out = keys_out + kKeyTile * a_.head_dim;
    for (int64_t key = span.first, count; key < span.last; key += count) {
      const int64_t row = key % a_.block_size, at = key - span.tile;
      count = min(span.last - key, a_.block_size - row);
      const T* keys = keys_of(item, key);
      for (int64_t d = 0; d < a_.head_dim; d++) {
        std::memcpy(keys_out + d * kKeyTile + at, keys + d * a_.block_size + row, static_cast<size_t>(count) * sizeof(T));
      }
      std::memcpy(values_out + at * dim_, values_of(item, keys) + row * dim_, static_cast<size_t>(count * dim_) * sizeof(T));
    }
    Tile<T> tile{};
    tile.ld_keys = kKeyTile;
    for (int64_t g = 0; g < kKeyTile / kGroup; g++) {
      tile.keys.of[g] = keys_out + g * kGroup;
      tile.key_areas.of[g] = keys_out + g * kGroup * a_.head_dim;
      tile.values.of[g] = values_out + g * kGroup * dim_;
    }
    return tile;
  }

  // Of the block of a key, and the item's head: keys [head_dim][block_size], values [block_size][dim].
  const T* keys_of(const Item& item, int64_t key) const {
    const int64_t block = a_.block_tables[item.sequence * a_.ld_block_table + key / a_.block_size];
    return static_cast<const T*>(a_.kv_cache) + block * block_elements_ + item.kv_head * a_.head_dim * a_.block_size;
  }
  const T* values_of(const Item& item, const T* keys) const {
    return keys + ((a_.num_kv_heads - item.kv_head) * a_.head_dim + item.kv_head * dim_) * a_.block_size;
  }

  void finish(const Item& item, const State& state) {
    item.for_each_row([&](int64_t row, int64_t query, int64_t head) {
      float sum = state.sum[row], factor = 1.0f;
      if (a_.sinks) {
        const float maximum = max(state.maximum[row], a_.sinks[head]);
        factor = exp(state.maximum[row] - maximum);
        sum = sum * factor + exp(a_.sinks[head] - maximum);
      }
      factor = sum > 0 ? factor / sum : 0.0f;
      const float* values = state.values + row * dim_;
      float* out = a_.out + query * a_.ld_out + head * a_.head_dim;
      for (int64_t d = 0; d < a_.head_dim; d += kLanes) {
        if constexpr (RowsOf<T>::kTakeRanges) prefetch_for_write(out + kQueriesAhead * a_.ld_out + d);
        const F result = load(values + d) * factor;
        if (d + kLanes <= a_.head_dim) {
          store(out + d, result);
        } else {
          store_n(out + d, result, a_.head_dim - d);
        }
      }
    });
  }

  // Tiles that there are copies of at a time.
  static constexpr int64_t kGatheredTiles = RowsOf<T>::kTakeRanges ? kRangeTiles : 1;

  const PagedAttentionArgs& a_;
  const int64_t block_elements_;
  const int64_t dim_;
  Scratch scratch_;
  typename RowsOf<T>::Type rows_;
  const State range_, total_;
  // Whether a group's keys always lie in one block.
  const bool in_blocks_;
  T* const gathered_;
  const Item* upcoming_ = nullptr;
};

template <class T>
void attend(const PagedAttentionArgs& a, const ChunkContext& c) {
  Attention<T> attention(a, c.scratch);
  Items items(a, c.num_threads);
  Item item;
  if (!splits(a, c.num_threads)) {
    bool found = items.find(c.chunk, item);
    while (found) {
      Item upcoming;
      found = items.find(c.next_item(), upcoming);
      attention.run(item, found ? &upcoming : nullptr);
      item = upcoming;
    }
    return;
  }
  const int64_t stride = attention_partial_floats(a.num_heads / a.num_kv_heads, a.head_dim);
  int64_t mine = c.chunk, partial = 0;
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
  Items items(a, c.num_threads);
  Item item;
  const int64_t stride = attention_partial_floats(a.num_heads / a.num_kv_heads, a.head_dim);
  int64_t mine = c.chunk;
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
