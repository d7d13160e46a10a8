// The paged KV cache and attention over it.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "stream.h"

using namespace bao;

namespace {

constexpr int32_t kMaxHeadDim = 256;
constexpr int64_t kPartialsPerThread = 16;
// Elements of a chunk of the cache write: each goes to a line of its own, so that few take as long as many of another op.
constexpr int64_t kElementsPerChunk = 1 << 10;

bool bad_cache_shape(int32_t num_kv_heads, int32_t head_dim, int32_t block_size) {
  return num_kv_heads <= 0 || head_dim <= 0 || head_dim > kMaxHeadDim || block_size <= 0;
}

}  // namespace

// Bytes of one KV block of one layer, or -1 for a shape or type that there is none of.
BAO_EXPORT int64_t bao_kv_block_bytes(int32_t num_kv_heads, int32_t head_dim, int32_t block_size, int32_t dtype) {
  if (bad_cache_shape(num_kv_heads, head_dim, block_size) || !is_cache_dtype(dtype)) return -1;
  return kv_block_elements(num_kv_heads, head_dim, block_size) * cache_dtype_bytes(dtype);
}

BAO_EXPORT int32_t bao_reshape_and_cache(void* handle, const float* key, const float* value, int64_t ld_kv,
                                         const int32_t* slot_mapping, void* kv_cache, int32_t cache_dtype, int32_t num_tokens,
                                         int32_t num_kv_heads, int32_t head_dim, int32_t block_size) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || bad_cache_shape(num_kv_heads, head_dim, block_size)) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_kv_heads) * head_dim;
  if (ld_kv < row) return kBadShape;
  if (!is_cache_dtype(cache_dtype)) return kBadDType;
  if (num_tokens == 0) return kOk;
  if (!key || !value || !slot_mapping || !kv_cache) return kNullPointer;
  int32_t tokens_per_chunk = static_cast<int32_t>(std::max<int64_t>(1, kElementsPerChunk / row));
  // Tokens of a prompt are neighbours: whole blocks for each thread, so that threads don't write to the same lines.
  if (num_tokens >= 4 * stream->num_threads() * block_size) {
    tokens_per_chunk = static_cast<int32_t>(round_up(tokens_per_chunk, block_size));
  }
  // Tokens that are fewer than threads are shared out by heads, but not below half a chunk.
  const int32_t most = static_cast<int32_t>(2 * row / kElementsPerChunk);
  const int32_t threads_per_token = std::clamp(stream->num_threads() / num_tokens, 1, std::max(1, most));
  const int32_t heads_per_chunk = static_cast<int32_t>(ceil_div(num_kv_heads, threads_per_token));
  const ReshapeAndCacheArgs args{key,        value,        ld_kv,    slot_mapping, kv_cache,         cache_dtype,
                                 num_tokens, num_kv_heads, head_dim, block_size,   tokens_per_chunk, heads_per_chunk};
  const int64_t chunks = ceil_div(num_tokens, tokens_per_chunk) * ceil_div(num_kv_heads, heads_per_chunk);
  return stream->enqueue(stream->kernels().reshape_and_cache, args, chunks);
}

BAO_EXPORT int32_t bao_paged_attention(void* handle, const float* q, int64_t ld_q, const void* kv_cache, int32_t cache_dtype,
                                       const int32_t* block_tables, int32_t ld_block_table, const int32_t* seq_lens,
                                       const int32_t* query_start_loc, int32_t num_seqs, int32_t num_heads, int32_t num_kv_heads,
                                       int32_t head_dim, int32_t block_size, float scale, int32_t sliding_window, float soft_cap,
                                       const float* sinks, float* out, int64_t ld_out) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_seqs < 0 || ld_block_table < 0 || bad_cache_shape(num_kv_heads, head_dim, block_size)) return kBadShape;
  if (num_heads <= 0 || num_heads % num_kv_heads != 0 || sliding_window < 0) return kBadShape;
  if (!(soft_cap >= 0) || !std::isfinite(scale)) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_heads) * head_dim;
  if (ld_q < row || ld_out < row) return kBadShape;
  if (!is_cache_dtype(cache_dtype)) return kBadDType;
  if (num_seqs == 0) return kOk;
  if (!q || !kv_cache || !block_tables || !seq_lens || !query_start_loc || !out) return kNullPointer;

  const int64_t group = num_heads / num_kv_heads;
  const int32_t num_threads = stream->num_threads();
  const bool may_split = num_threads > 1 && static_cast<int64_t>(ld_block_table) * block_size > kKeyRange;
  const int64_t max_partials = may_split ? kPartialsPerThread * num_threads : 0;
  const size_t scratch = static_cast<size_t>(attention_scratch_floats(group, head_dim)) * sizeof(float);
  const size_t workspace = static_cast<size_t>(max_partials * attention_partial_floats(group, head_dim)) * sizeof(float);
  if (const int32_t error = stream->reserve(scratch, workspace)) return error;
  const PagedAttentionArgs args{q,           ld_q,           kv_cache,   block_tables, seq_lens,     query_start_loc,
                                sinks,       out,            ld_out,     cache_dtype,  ld_block_table, num_seqs,
                                num_heads,   num_kv_heads,   head_dim,   block_size,   scale,        sliding_window,
                                soft_cap,    static_cast<int32_t>(max_partials)};
  if (const int32_t error = stream->enqueue(stream->kernels().paged_attention, args, num_threads)) return error;
  return may_split ? stream->enqueue(stream->kernels().merge_attention, args, num_threads) : kOk;
}
