// Paged attention on tensor cores, for prefill, decode and mixtures alike (Dao, FlashAttention-2; the split over keys is Flash-Decoding's).
//
// The rows of a sequence and a KV head are its (query, head of the group) pairs, so that a decode step shares the loaded keys among the
// heads. An item is kRows of them; a warp has 16. Keys come in tiles, grouped into ranges, both at absolute
// positions. A row's result over a range starts from nothing; ranges are merged in order, whether by the block that computed them all
// or, where there are few items, by a second kernel. So a row's bits depend on its own query and keys only.
#include "attention_items.cuh"
#include "ptx.cuh"

namespace bao {
namespace {

constexpr int kMaxHeadDim = 256;
constexpr int kBlocksPerMultiprocessor = 2;

// Sizes for head_dim up to kDim.
template <int kDim>
struct Shape {
  static constexpr int kWarps = kDim > 128 ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kWarps;
  // A tile's keys. Great heads have fewer, so that a block takes no more than the least that devices from 8.0 on give.
  static constexpr int kKeyTile = kDim > 128 ? 16 : 32;
  // Rows of shared tiles lie 16 bytes off a multiple of the banks, so that 8 rows are read without a conflict.
  static constexpr int kLd = kDim + 8;
  // Floats of the weighted sum of values that a lane holds.
  static constexpr int kAcc = kDim / 2;
  static constexpr int kTile = kKeyTile * kLd;
  // Queries, two stages of keys and values, the merged sum.
  static constexpr size_t kSharedBytes = static_cast<size_t>(kRows * kLd + 4 * kTile) * 2 + static_cast<size_t>(kThreads * kAcc) * 4;
  // Of a warp's part of a range: the lanes' sums, then maximum and sum of each lane's two rows.
  static constexpr int kPartialFloats = 32 * (kAcc + 4);
};

// What is read of an fp8 cache at once.
struct alignas(8) EightFloat8 {
  Float8E4M3 element[8];
};

// Running softmax of the two rows (lane / 4 and 8 more) that a lane has a part of.
struct Rows {
  float maximum[2] = {kNothing, kNothing};
  float sum[2] = {0, 0};
};

// Factors for what `total` and `part` hold, whose rows become one. fmaf, so that every caller rounds alike.
__device__ inline void merge_rows(Rows& total, const Rows& part, float (&keep)[2], float (&add)[2]) {
  for (int r = 0; r < 2; r++) {
    const float maximum = fmaxf(total.maximum[r], part.maximum[r]);
    keep[r] = expf(total.maximum[r] - maximum);
    add[r] = expf(part.maximum[r] - maximum);
    total.maximum[r] = maximum;
    total.sum[r] = fmaf(total.sum[r], keep[r], part.sum[r] * add[r]);
  }
}

// Accumulator i of a lane: row lane / 4 + 8 * (i / 2 % 2), dimension 8 * (i / 4) + 2 * (lane % 4) + i % 2.
template <class T, int kDim>
__device__ void store_row_parts(const AttentionArgs& a, const Item& item, Rows rows, const float* acc, int acc_step,
                                Global<const float> sinks, Global<T> out) {
  const int group = a.num_heads / a.num_kv_heads, lane = static_cast<int>(threadIdx.x) % 32;
  for (int r = 0; r < 2; r++) {
    const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * r;
    if (row >= item.num_rows) continue;
    const int flat = item.first_row + row, head = item.kv_head * group + flat % group;
    float factor = 1.0f, sum = rows.sum[r];
    if (sinks) {
      const float maximum = fmaxf(rows.maximum[r], sinks[head]);
      factor = expf(rows.maximum[r] - maximum);
      sum = sum * factor + expf(sinks[head] - maximum);
    }
    const float scale = sum > 0 ? factor / sum : 0.0f;
    const Global<T> to = out + ((item.query_start + flat / group) * a.ld_out + static_cast<int64_t>(head) * a.head_dim);
    for (int i = 0; i < kDim / 8; i++) {
      for (int j = 0; j < 2; j++) {
        const int dim = 8 * i + 2 * (lane % 4) + j;
        if (dim < a.head_dim) to[dim] = from_float<T>(acc[(4 * i + 2 * r + j) * acc_step] * scale);
      }
    }
  }
}

template <class T, int kDim>
class AttentionBlock {
  using S = Shape<kDim>;
  static_assert(S::kSharedBytes <= kLeastSharedBytes, "devices of compute capability 8.6, 8.9 and 12.0 have no more");

 public:
  __device__ AttentionBlock(const AttentionArgs& a, Global<const T> q, Global<const unsigned char> kv_cache,
                            Global<const int32_t> block_tables)
      : a_(a), q_(q), kv_cache_(kv_cache), block_tables_(block_tables), group_(a.num_heads / a.num_kv_heads),
        lane_(static_cast<int>(threadIdx.x) % 32), warp_(static_cast<int>(threadIdx.x) / 32) {
    queries_ = shared_memory<T>();
    tiles_ = queries_ + S::kRows * S::kLd;
    total_ = reinterpret_cast<float*>(tiles_ + 4 * S::kTile) + threadIdx.x;
  }

  // The item's ranges from `range_begin` on, merged into total() and rows.
  __device__ Rows run(const Item& item, int range_begin, int num_ranges) {
    load_queries(item);
    for (int i = 0; i < S::kAcc; i++) total_[i * S::kThreads] = 0;
    Rows total;
    const int key_end = item.key_end(group_), key_begin = item.key_begin(a_, group_);
    const int begin = max_of(range_start(range_begin), key_begin) / S::kKeyTile;
    const int end = (min_of(range_start(range_begin + num_ranges), key_end) + S::kKeyTile - 1) / S::kKeyTile;
    if (begin < end) load_tile(item, begin, key_end);
    cp_async_commit();
    for (int tile = begin; tile < end; tile++) {
      if (tile + 1 < end) load_tile(item, tile + 1, key_end);
      cp_async_commit();
      cp_async_wait<1>();
      __syncthreads();
      // A warp without rows only helps to load.
      if (warp_ * 16 < item.num_rows) {
        attend(item, tile);
        if (tile + 1 == end || is_range_start((tile + 1) * S::kKeyTile)) end_range(total);
      }
      __syncthreads();
    }
    cp_async_wait<0>();
    return total;
  }

  // Accumulator i of this lane is total()[i * kThreads].
  __device__ float* total() { return total_; }

 private:
  __device__ static int max_of(int x, int y) { return x > y ? x : y; }
  __device__ static int min_of(int x, int y) { return x < y ? x : y; }
  __device__ T* keys(int tile) { return tiles_ + tile % 2 * 2 * S::kTile; }
  __device__ T* values(int tile) { return keys(tile) + S::kTile; }

  __device__ void load_queries(const Item& item) {
    for (int i = static_cast<int>(threadIdx.x); i < S::kRows * kDim; i += S::kThreads) {
      const int row = i / kDim, dim = i % kDim, flat = item.first_row + row;
      const int64_t head = item.kv_head * group_ + flat % group_;
      const bool there = row < item.num_rows && dim < a_.head_dim;
      queries_[row * S::kLd + dim] =
          there ? q_[(item.query_start + flat / group_) * a_.ld_q + head * a_.head_dim + dim] : from_float<T>(0.0f);
    }
    __syncthreads();
  }

  // Keys and values of a tile, 8 elements at a time; zeros past the last key and past head_dim.
  __device__ void load_tile(const Item& item, int tile, int key_end) {
    const int64_t plane = static_cast<int64_t>(a_.num_kv_heads) * a_.block_size * a_.head_dim;
    const bool direct = a_.cache_dtype == dtype_of(T{}) && a_.head_dim % 8 == 0;
    const bool eights = a_.cache_dtype == kFp8E4M3 && a_.head_dim % 8 == 0;
    for (int i = static_cast<int>(threadIdx.x); i < S::kKeyTile * kDim / 8; i += S::kThreads) {
      const int row = i / (kDim / 8), dim = i % (kDim / 8) * 8, key = tile * S::kKeyTile + row;
      const bool there = key < key_end && dim < a_.head_dim;
      int64_t at = 0;
      if (there) {
        const int block = block_tables_[static_cast<int64_t>(item.seq) * a_.ld_block_table + key / a_.block_size];
        at = cache_offset(a_, block, item.kv_head, key) + dim;
      }
      T* key_row = keys(tile) + row * S::kLd + dim;
      T* value_row = values(tile) + row * S::kLd + dim;
      if (direct) {
        const auto cache = cast<const T>(kv_cache_);
        cp_async_16(key_row, address_of(cache + at, there ? 16 : 0, 16), there);
        cp_async_16(value_row, address_of(cache + (at + (there ? plane : 0)), there ? 16 : 0, 16), there);
      } else if (eights) {
        const auto cache = cast<const EightFloat8>(kv_cache_);
        const EightFloat8 none{}, key8 = there ? cache[at / 8] : none, value8 = there ? cache[(at + plane) / 8] : none;
        for (int j = 0; j < 8; j++) {
          key_row[j] = from_float<T>(to_float(key8.element[j]));
          value_row[j] = from_float<T>(to_float(value8.element[j]));
        }
      } else {
        for (int j = 0; j < 8; j++) {
          const bool element = there && dim + j < a_.head_dim;
          key_row[j] = from_float<T>(element ? read_cache(kv_cache_, a_.cache_dtype, at + j) : 0.0f);
          value_row[j] = from_float<T>(element ? read_cache(kv_cache_, a_.cache_dtype, at + plane + j) : 0.0f);
        }
      }
    }
  }

  __device__ void attend(const Item& item, int tile) {
    float scores[S::kKeyTile / 8][4] = {};
    multiply_queries(tile, scores);
    float shrink[2];
    softmax(item, tile, scores, shrink);
    for (int i = 0; i < S::kAcc; i++) acc_[i / 4][i % 4] *= shrink[i / 2 % 2];
    multiply_values(tile, scores);
  }

  __device__ void multiply_queries(int tile, float (&scores)[S::kKeyTile / 8][4]) {
    const T* query_row = queries_ + (warp_ * 16 + lane_ % 16) * S::kLd + lane_ / 16 * 8;
    const T* key_row = keys(tile) + lane_ / 4 * S::kLd + 2 * (lane_ % 4);
    for (int k = 0; k < kDim / 16; k++) {
      uint32_t a[4];
      ldmatrix_x4(a, query_row + 16 * k);
      for (int n = 0; n < S::kKeyTile / 8; n++) {
        const T* at = key_row + 8 * n * S::kLd + 16 * k;
        const uint32_t b[2] = {two(at), two(at + 8)};
        mma_m16n8k16<T>(scores[n], a, b);
      }
    }
  }

  // Scores become probabilities relative to the new maximum; `shrink` is the factor for what was summed before.
  __device__ void softmax(const Item& item, int tile, float (&scores)[S::kKeyTile / 8][4], float (&shrink)[2]) {
    for (int r = 0; r < 2; r++) {
      const int position = item.position(warp_ * 16 + lane_ / 4 + 8 * r, group_);
      const int begin = first_key(position, a_);
      float maximum = rows_.maximum[r];
      for (int i = 0; i < S::kKeyTile / 4; i++) {
        const int key = tile * S::kKeyTile + i / 2 * 8 + 2 * (lane_ % 4) + i % 2;
        float& score = scores[i / 2][2 * r + i % 2];
        score = key >= begin && key <= position ? capped(score, a_) : kNothing;
        maximum = fmaxf(maximum, score);
      }
      for (int lanes = 1; lanes < 4; lanes *= 2) maximum = fmaxf(maximum, __shfl_xor_sync(kFullWarp, maximum, lanes));
      float sum = 0;
      for (int i = 0; i < S::kKeyTile / 4; i++) {
        float& score = scores[i / 2][2 * r + i % 2];
        score = score > kNothing ? expf(score - maximum) : 0.0f;
        sum += score;
      }
      for (int lanes = 1; lanes < 4; lanes *= 2) sum += __shfl_xor_sync(kFullWarp, sum, lanes);
      shrink[r] = expf(rows_.maximum[r] - maximum);
      rows_.maximum[r] = maximum;
      rows_.sum[r] = fmaf(rows_.sum[r], shrink[r], sum);
    }
  }

  // Two neighbouring tiles of scores, as they lie in the lanes, are the A fragment of 16 keys.
  __device__ void multiply_values(int tile, const float (&p)[S::kKeyTile / 8][4]) {
    for (int k = 0; k < S::kKeyTile / 16; k++) {
      const uint32_t a[4] = {pack<T>(p[2 * k][0], p[2 * k][1]), pack<T>(p[2 * k][2], p[2 * k][3]),
                             pack<T>(p[2 * k + 1][0], p[2 * k + 1][1]), pack<T>(p[2 * k + 1][2], p[2 * k + 1][3])};
      const T* value_row = values(tile) + (16 * k + lane_ % 16) * S::kLd;
      for (int n = 0; n < kDim / 8; n++) {
        uint32_t b[2];
        ldmatrix_x2_trans(b, value_row + 8 * n);
        mma_m16n8k16<T>(acc_[n], a, b);
      }
    }
  }

  __device__ void end_range(Rows& total) {
    float keep[2], add[2];
    merge_rows(total, rows_, keep, add);
    for (int i = 0; i < S::kAcc; i++) {
      const int r = i / 2 % 2;
      float& sum = total_[i * S::kThreads];
      sum = fmaf(sum, keep[r], acc_[i / 4][i % 4] * add[r]);
      acc_[i / 4][i % 4] = 0;
    }
    rows_ = Rows();
  }

  __device__ static bool is_range_start(int key) { return range_start(range_of(key)) == key; }
  __device__ static uint32_t two(const T* at) { return *reinterpret_cast<const uint32_t*>(at); }
  __device__ static constexpr int32_t dtype_of(BFloat16) { return kBFloat16; }
  __device__ static constexpr int32_t dtype_of(Half) { return kFloat16; }

  const AttentionArgs& a_;
  Global<const T> q_;
  Global<const unsigned char> kv_cache_;
  Global<const int32_t> block_tables_;
  int group_, lane_, warp_;
  T* queries_;
  T* tiles_;
  float* total_;
  float acc_[kDim / 8][4] = {};
  Rows rows_;
};

template <class T, int kDim>
__global__ void __launch_bounds__(Shape<kDim>::kThreads, kBlocksPerMultiprocessor)
    attention_kernel(Global<const T> q, Global<const unsigned char> kv_cache, Global<const int32_t> block_tables,
                     Global<const int32_t> seq_lens, Global<const int32_t> query_start_loc, Global<const float> sinks, Global<T> out,
                     Global<float> partials, int64_t max_partials, AttentionArgs a) {
  await_previous_kernel();
  using S = Shape<kDim>;
  const int group = a.num_heads / a.num_kv_heads, num_blocks = static_cast<int>(gridDim.x), warp = static_cast<int>(threadIdx.x) / 32;
  Items<S::kRows> items(a, query_start_loc, seq_lens);
  Item item;
  AttentionBlock<T, kDim> block(a, q, kv_cache, block_tables);
  if (!items.split(num_blocks, max_partials)) {
    for (int64_t number = blockIdx.x; items.find(number, item); number += num_blocks) {
      const Rows rows = block.run(item, item.range_begin(a, group), item.num_ranges(a, group));
      store_row_parts<T, kDim>(a, item, rows, block.total(), S::kThreads, sinks, out);
    }
    return;
  }
  // Ranges of all items in a row: every num_blocks-th is this block's.
  int64_t next = blockIdx.x, first_partial = 0;
  for (int64_t number = 0; items.find(number, item); number++) {
    const int begin = item.range_begin(a, group), count = item.num_ranges(a, group), warps = item.num_warps();
    for (; next < count; next += num_blocks) {
      const Rows rows = block.run(item, begin + static_cast<int>(next), 1);
      if (warp >= warps) continue;
      const Global<float> to = partials + ((first_partial + next * warps + warp) * S::kPartialFloats + threadIdx.x % 32);
      for (int i = 0; i < S::kAcc; i++) to[i * 32] = block.total()[i * S::kThreads];
      for (int r = 0; r < 2; r++) {
        to[(S::kAcc + r) * 32] = rows.maximum[r];
        to[(S::kAcc + 2 + r) * 32] = rows.sum[r];
      }
    }
    next -= count;
    first_partial += static_cast<int64_t>(count) * warps;
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(Shape<kDim>::kThreads, kBlocksPerMultiprocessor)
    merge_attention_kernel(Global<const int32_t> seq_lens, Global<const int32_t> query_start_loc, Global<const float> sinks,
                           Global<T> out, Global<const float> partials, int64_t max_partials, AttentionArgs a) {
  await_previous_kernel();
  using S = Shape<kDim>;
  const int group = a.num_heads / a.num_kv_heads, num_blocks = static_cast<int>(gridDim.x), warp = static_cast<int>(threadIdx.x) / 32;
  Items<S::kRows> items(a, query_start_loc, seq_lens);
  if (!items.split(num_blocks, max_partials)) return;
  Item item;
  int64_t first_partial = 0;
  for (int64_t number = 0; items.find(number, item); number++) {
    const int count = item.num_ranges(a, group), warps = item.num_warps();
    if (number % num_blocks == blockIdx.x && warp < warps) {
      Rows total;
      float acc[S::kAcc] = {};
      for (int range = 0; range < count; range++) {
        const int64_t partial = first_partial + static_cast<int64_t>(range) * warps + warp;
        const Global<const float> from = partials + (partial * S::kPartialFloats + threadIdx.x % 32);
        Rows part;
        for (int r = 0; r < 2; r++) {
          part.maximum[r] = from[(S::kAcc + r) * 32];
          part.sum[r] = from[(S::kAcc + 2 + r) * 32];
        }
        float keep[2], add[2];
        merge_rows(total, part, keep, add);
        for (int i = 0; i < S::kAcc; i++) acc[i] = fmaf(acc[i], keep[i / 2 % 2], from[i * 32] * add[i / 2 % 2]);
      }
      store_row_parts<T, kDim>(a, item, total, acc, 1, sinks, out);
    }
    first_partial += static_cast<int64_t>(count) * warps;
  }
}

template <class T, int kDim>
int32_t launch_attention(const Stream* stream, const AttentionPointers& p, const AttentionArgs& a) {
  using S = Shape<kDim>;
  const int grid = stream->num_multiprocessors * kBlocksPerMultiprocessor;
  const bool may_split = static_cast<int64_t>(a.ld_block_table) * a.block_size > kShortRange;
  const int64_t room = stream->workspace_bytes / (S::kPartialFloats * static_cast<int64_t>(sizeof(float)));
  const int64_t max_partials = may_split ? room : 0;
  auto* partials = static_cast<float*>(stream->workspace);
  const int32_t code = launched(launch("paged_attention", attention_kernel<T, kDim>, grid, S::kThreads, S::kSharedBytes, stream->stream,
                                       static_cast<const T*>(p.q), static_cast<const unsigned char*>(p.kv_cache), p.block_tables,
                                       p.seq_lens, p.query_start_loc, p.sinks, static_cast<T*>(p.out), partials, max_partials, a));
  if (code != kOk || max_partials == 0) return code;
  return launched(launch("merge_attention", merge_attention_kernel<T, kDim>, grid, S::kThreads, 0, stream->stream, p.seq_lens,
                         p.query_start_loc, p.sinks, static_cast<T*>(p.out), static_cast<const float*>(partials), max_partials, a));
}

template <class T>
int32_t launch_for_dim(const Stream* stream, const AttentionPointers& p, const AttentionArgs& a) {
  if (a.head_dim <= 32) return launch_attention<T, 32>(stream, p, a);
  if (a.head_dim <= 64) return launch_attention<T, 64>(stream, p, a);
  if (a.head_dim <= 96) return launch_attention<T, 96>(stream, p, a);
  if (a.head_dim <= 128) return launch_attention<T, 128>(stream, p, a);
  return launch_attention<T, 256>(stream, p, a);
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_paged_attention(const Stream* stream, const void* q, int64_t ld_q, const void* kv_cache, int32_t cache_dtype,
                                       const int32_t* block_tables, int32_t ld_block_table, const int32_t* seq_lens,
                                       const int32_t* query_start_loc, int32_t num_seqs, int32_t num_heads, int32_t num_kv_heads,
                                       int32_t head_dim, int32_t block_size, float scale, int32_t sliding_window, float soft_cap,
                                       const float* sinks, void* out, int64_t ld_out) {
  if (!stream) return kStreamClosed;
  if (num_seqs < 0 || ld_block_table < 0 || num_kv_heads <= 0 || head_dim <= 0 || head_dim > kMaxHeadDim) return kBadShape;
  if (block_size <= 0 || num_heads <= 0 || num_heads % num_kv_heads != 0 || sliding_window < 0) return kBadShape;
  if (!(soft_cap >= 0) || !(scale - scale == 0)) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_heads) * head_dim;
  if (ld_q < row || ld_out < row) return kBadShape;
  if (!is_cache_dtype(cache_dtype)) return kBadDType;
  if (num_seqs == 0) return kOk;
  if (!q || !kv_cache || !block_tables || !seq_lens || !query_start_loc || !out) return kNullPointer;
  const AttentionPointers pointers{q, kv_cache, block_tables, seq_lens, query_start_loc, sinks, out};
  const AttentionArgs args{ld_q,         ld_out,   cache_dtype, ld_block_table, num_seqs, num_heads,
                           num_kv_heads, head_dim, block_size,  sliding_window, scale,    soft_cap};
  switch (stream->activation) {
    case kBFloat16:
      return launch_for_dim<BFloat16>(stream, pointers, args);
    case kFloat16:
      return launch_for_dim<Half>(stream, pointers, args);
    default:
      return launch_float_attention(stream, pointers, args);
  }
}
