// Paged attention with online softmax (Dao et al., FlashAttention-2; the split over keys is Flash-Decoding's).
//
// A work item is a tile of queries of one sequence and the heads that share one KV head; its rows are (query, head). Keys are
// taken in tiles of kKeyTile, grouped into ranges of kKeyRange, both at absolute positions. A row's result over a range starts
// from nothing; ranges are merged in order. That makes a row's arithmetic a function of its own query and keys only: not of the
// batch, of the chunking of the prompt, or of how items or ranges are spread over threads.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6, kTileVectors = 4;
#else
constexpr int kTileRows = 3, kTileVectors = 4;
#endif
// Keys that always lie together in one block when the block size is a multiple of it.
constexpr int64_t kGroup = 16;
constexpr int kGroupVectors = kGroup / kLanes;
// Stands for the logarithm of nothing; finite, so that differences of it are numbers.
constexpr float kNothing = -1e30f;

// One tile of queries and one KV head.
struct Item {
  int64_t sequence;
  int64_t kv_head;
  // Row of q of its first query, number of queries, position of the first.
  int64_t query;
  int64_t num_queries;
  int64_t position;

  int64_t key_begin(const PagedAttentionArgs& a) const {
    return a.sliding_window > 0 ? max(0, position - a.sliding_window + 1) : 0;
  }
  int64_t key_end() const { return max(0, position + num_queries); }
  int64_t range_begin(const PagedAttentionArgs& a) const { return key_begin(a) / kKeyRange; }
  int64_t range_end() const { return ceil_div(key_end(), kKeyRange); }
};

// Walks the batch's items in their fixed order; asked for ascending numbers only.
class Items {
 public:
  explicit Items(const PagedAttentionArgs& a) : a_(a), group_(a.num_heads / a.num_kv_heads) {
    queries_per_item_ = max(1, kAttentionRows / group_);
  }

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
            min(queries_per_item_, queries - first), a_.seq_lens[sequence_] - queries + first};
  }

  const PagedAttentionArgs& a_;
  const int64_t group_;
  int64_t queries_per_item_;
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

// Running softmax of the rows of an item: maximum, sum of exponentials, weighted sum of values [rows][dim].
struct State {
  float* maximum;
  float* sum;
  float* values;
};

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

// c[R][NV] (+)= a[R][k] · b[k][NV], each output one chain over k.
template <int R, int NV, class T>
BAO_INLINE void multiply_tile(const float* a, int64_t lda, const T* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                              bool add) {
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) acc[r][v] = add ? load(c + r * ldc + v * kLanes) : F{};
  }
  for (int64_t i = 0; i < k; i++) {
    F w[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) w[v] = load(b + i * ldb + v * kLanes);
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F x = set1(a[r * lda + i]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) accumulate(acc[r][v], w[v], x);
    }
  }
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) store(c + r * ldc + v * kLanes, acc[r][v]);
  }
}

template <int R, int NV, class T>
static void multiply_rows(int64_t rows, const float* a, int64_t lda, const T* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                          bool add) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_rows<R - 1, NV>(rows, a, lda, b, ldb, k, c, ldc, add);
  }
  multiply_tile<R, NV>(a, lda, b, ldb, k, c, ldc, add);
}

// c[rows][n] (+)= a[rows][k] · b[k][n]; n is a multiple of kGroup.
template <class T>
static void multiply(int64_t rows, const float* a, int64_t lda, const T* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                     int64_t n, bool add) {
  int64_t column = 0;
  for (; column + kTileVectors * kLanes <= n; column += kTileVectors * kLanes) {
    for (int64_t r = 0; r < rows; r += kTileRows) {
      multiply_rows<kTileRows, kTileVectors>(min(kTileRows, rows - r), a + r * lda, lda, b + column, ldb, k,
                                             c + r * ldc + column, ldc, add);
    }
  }
  if (column < n) {
    for (int64_t r = 0; r < rows; r += kTileRows) {
      multiply_rows<kTileRows, kGroupVectors>(min(kTileRows, rows - r), a + r * lda, lda, b + column, ldb, k,
                                              c + r * ldc + column, ldc, add);
    }
  }
}

template <class T>
class Attention {
 public:
  Attention(const PagedAttentionArgs& a, void* scratch)
      : a_(a),
        group_(a.num_heads / a.num_kv_heads),
        block_elements_(kv_block_elements(a.num_kv_heads, a.head_dim, a.block_size)),
        s_(a, scratch) {}

  void run(const Item& item) {
    load_queries(item);
    clear(s_.total, rows_);
    for (int64_t range = item.range_begin(a_); range < item.range_end(); range++) {
      attend_range(item, range);
      merge(s_.total, s_.range, rows_);
    }
    finish(item);
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
    clear(s_.total, rows_);
    for (int64_t range = item.range_begin(a_); range < item.range_end(); range++) {
      merge(s_.total, partial_state(partials), rows_);
      partials += stride;
    }
    finish(item);
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
      for (int64_t d = 0; d < a_.head_dim; d++) out[d] = q[d] * a_.scale;
    }
  }

  void clear(const State& state, int64_t rows) {
    for (int64_t row = 0; row < rows; row++) {
      state.maximum[row] = kNothing;
      state.sum[row] = 0;
    }
    std::memset(state.values, 0, bytes(rows * s_.dim));
  }

  void merge(const State& into, const State& from, int64_t rows) {
    for (int64_t row = 0; row < rows; row++) {
      const float maximum = max(into.maximum[row], from.maximum[row]);
      const float keep = exp(into.maximum[row] - maximum), add = exp(from.maximum[row] - maximum);
      into.maximum[row] = maximum;
      into.sum[row] = into.sum[row] * keep + from.sum[row] * add;
      for (int64_t d = 0; d < s_.dim; d += kLanes) {
        float* value = into.values + row * s_.dim + d;
        store(value, fma(load(from.values + row * s_.dim + d), set1(add), load(value) * keep));
      }
    }
  }

  void attend_range(const Item& item, int64_t range) {
    clear(s_.range, rows_);
    const int64_t begin = max(item.key_begin(a_), range * kKeyRange);
    const int64_t end = min(item.key_end(), (range + 1) * kKeyRange);
    // Converting a tile once pays from some rows on; blocks that don't hold whole groups are gathered always.
    const bool direct = rows_ <= 2 * kTileRows && a_.block_size % kGroup == 0;
    for (int64_t tile = begin / kKeyTile * kKeyTile; tile < end; tile += kKeyTile) {
      const int64_t first = max(begin, tile), last = min(end, tile + kKeyTile);
      if (direct) {
        score_direct(item, tile, first, last);
        softmax(item, tile);
        add_values_direct(item, tile, first, last);
      } else {
        stage(item, tile, first, last);
        multiply(rows_, s_.queries, s_.dim, s_.keys, kKeyTile, a_.head_dim, s_.scores, kKeyTile, kKeyTile, false);
        softmax(item, tile);
        multiply(rows_, s_.scores + (first - tile), kKeyTile, s_.values + (first - tile) * s_.dim, s_.dim, last - first,
                 s_.range.values, s_.dim, s_.dim, true);
      }
    }
  }

  // Element of the cache where the block of a key begins.
  const T* block_of(const Item& item, int64_t key) const {
    const int64_t block = a_.block_tables[item.sequence * a_.ld_block_table + key / a_.block_size];
    return static_cast<const T*>(a_.kv_cache) + block * block_elements_;
  }
  // [head_dim][block_size], at the key's column.
  const T* keys_at(const Item& item, int64_t key) const {
    return block_of(item, key) + item.kv_head * a_.head_dim * a_.block_size + key % a_.block_size;
  }
  // [block_size][dim], at the key's row.
  const T* values_at(const Item& item, int64_t key) const {
    return block_of(item, key) + static_cast<int64_t>(a_.num_kv_heads) * a_.head_dim * a_.block_size +
           (item.kv_head * a_.block_size + key % a_.block_size) * s_.dim;
  }

  void score_direct(const Item& item, int64_t tile, int64_t first, int64_t last) {
    for (int64_t key = first / kGroup * kGroup; key < last; key += kGroup) {
      multiply(rows_, s_.queries, s_.dim, keys_at(item, key), a_.block_size, a_.head_dim, s_.scores + (key - tile), kKeyTile,
               kGroup, false);
    }
  }

  void add_values_direct(const Item& item, int64_t tile, int64_t first, int64_t last) {
    while (first < last) {
      const int64_t end = min(last, (first / a_.block_size + 1) * a_.block_size);
      multiply(rows_, s_.scores + (first - tile), kKeyTile, values_at(item, first), s_.dim, end - first, s_.range.values, s_.dim,
               s_.dim, true);
      first = end;
    }
  }

  void stage(const Item& item, int64_t tile, int64_t first, int64_t last) {
    while (first < last) {
      const int64_t end = min(last, (first / a_.block_size + 1) * a_.block_size);
      const int64_t count = end - first;
      const T* keys = keys_at(item, first);
      for (int64_t d = 0; d < a_.head_dim; d++) {
        float* out = s_.keys + d * kKeyTile + (first - tile);
        int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) store(out + i, load(keys + d * a_.block_size + i));
        if (i < count) store_n(out + i, load_n(keys + d * a_.block_size + i, count - i), count - i);
      }
      const T* values = values_at(item, first);
      float* out = s_.values + (first - tile) * s_.dim;
      for (int64_t i = 0; i < count * s_.dim; i += kLanes) store(out + i, load(values + i));
      first = end;
    }
  }

  // Scores of one tile become probabilities relative to each row's new maximum; sums and values so far are rescaled to it.
  void softmax(const Item& item, int64_t tile) {
    for (int64_t row = 0; row < rows_; row++) {
      const int64_t position = item.position + row / group_;
      const int64_t end = min(kKeyTile, position + 1 - tile);
      const int64_t begin = a_.sliding_window > 0 ? max(0, position - a_.sliding_window + 1 - tile) : 0;
      float* scores = s_.scores + row * kKeyTile;
      if (begin >= end) {
        std::memset(scores, 0, kKeyTile * sizeof(float));
        continue;
      }
      softmax_row(scores, static_cast<int32_t>(begin), static_cast<int32_t>(end), s_.range.maximum[row], s_.range.sum[row],
                  s_.range.values + row * s_.dim);
    }
  }

  void softmax_row(float* scores, int32_t begin, int32_t end, float& maximum, float& sum, float* values) {
    I lane;
    for (int i = 0; i < kLanes; i++) lane[i] = i;
    F highest = set1(kNothing);
    for (int32_t j = 0; j < kKeyTile; j += kLanes) {
      F s = load(scores + j);
      if (a_.soft_cap > 0) s = a_.soft_cap * tanh(s / a_.soft_cap);
      const I key = lane + j;
      s = ((key >= begin) & (key < end)) ? s : set1(kNothing);
      highest = max(highest, s);
      store(scores + j, s);
    }
    const float next = max(maximum, reduce_max(highest));
    const float keep = exp(maximum - next);
    F added{};
    for (int32_t j = 0; j < kKeyTile; j += kLanes) {
      const F p = exp(load(scores + j) - next);
      added += p;
      store(scores + j, p);
    }
    sum = sum * keep + reduce_add(added);
    maximum = next;
    if (keep == 1.0f) return;
    for (int64_t d = 0; d < s_.dim; d += kLanes) store(values + d, load(values + d) * keep);
  }

  void finish(const Item& item) {
    for (int64_t row = 0; row < rows_; row++) {
      const int64_t head = item.kv_head * group_ + row % group_;
      float sum = s_.total.sum[row], factor = 1.0f;
      if (a_.sinks) {
        const float maximum = max(s_.total.maximum[row], a_.sinks[head]);
        factor = exp(s_.total.maximum[row] - maximum);
        sum = sum * factor + exp(a_.sinks[head] - maximum);
      }
      factor = sum > 0 ? factor / sum : 0.0f;
      const float* values = s_.total.values + row * s_.dim;
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
};

template <class T>
void attend(const PagedAttentionArgs& a, const ChunkContext& c) {
  Attention<T> attention(a, c.scratch);
  Items items(a);
  Item item;
  if (!splits(a, c.num_threads)) {
    while (items.find(c.next_item(), item)) attention.run(item);
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

void paged_attention(const PagedAttentionArgs& a, const ChunkContext& c) {
  with_dtype(a.cache_dtype, [&](auto* type) { attend<std::remove_pointer_t<decltype(type)>>(a, c); });
}

void merge_attention(const PagedAttentionArgs& a, const ChunkContext& c) {
  with_dtype(a.cache_dtype, [&](auto* type) { merge_split<std::remove_pointer_t<decltype(type)>>(a, c); });
}

}  // namespace bao::BAO_ISA
