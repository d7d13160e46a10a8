// Ops on rows: norms, rotary embedding, activations, lookups and gathers.
#include <algorithm>

#include "kernels.h"
#include "stream.h"

using namespace bao;

namespace {

// Elements of a chunk: some microseconds of work, well above the cost of taking a chunk.
constexpr int64_t kElementsPerChunk = 1 << 13;
// Norm and rotation of heads take several times as long for each.
constexpr int64_t kHeadElementsPerChunk = 1 << 11;
constexpr int64_t kCopyBytesPerChunk = 1 << 16;

int32_t rows_per_chunk(int64_t row_elements, int64_t chunk_elements = kElementsPerChunk) {
  return static_cast<int32_t>(std::max<int64_t>(1, chunk_elements / std::max<int64_t>(1, row_elements)));
}

int32_t enqueue_rms_norm(void* handle, const float* x, float* residual, bool has_residual, const float* weight, float* out,
                         int32_t rows, int32_t n, float eps) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(eps >= 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weight || !out || (has_residual && !residual)) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(n);
  return stream->enqueue(stream->kernels().rms_norm, RmsNormArgs{x, residual, weight, out, rows, n, eps, per_chunk},
                         ceil_div(rows, per_chunk));
}

struct GatherTokenIdsArgs {
  const int32_t* token_table;
  int64_t ld_table;
  const int32_t* slots;
  const int32_t* positions;
  int32_t* out;
  int32_t num_tokens;
};

void gather_token_ids_chunk(const GatherTokenIdsArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kElementsPerChunk;
  const int64_t end = std::min<int64_t>(a.num_tokens, begin + kElementsPerChunk);
  for (int64_t i = begin; i < end; i++) a.out[i] = a.token_table[a.slots[i] * a.ld_table + a.positions[i]];
}

struct GatherRowsArgs {
  const float* x;
  const int32_t* indices;
  float* out;
  int32_t rows, n, rows_per_chunk;
};

void gather_rows_chunk(const GatherRowsArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.rows_per_chunk;
  const int64_t end = std::min<int64_t>(a.rows, begin + a.rows_per_chunk);
  for (int64_t i = begin; i < end; i++) {
    std::memcpy(a.out + i * a.n, a.x + static_cast<int64_t>(a.indices[i]) * a.n, static_cast<size_t>(a.n) * sizeof(float));
  }
}

struct CopyHeadsArgs {
  const float* x;
  int64_t ld_x;
  float* out;
  int64_t ld_out;
  int32_t num_tokens, num_heads, x_head_stride, out_head_stride, width, padded_width, tokens_per_chunk;
};

void copy_heads_chunk(const CopyHeadsArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.tokens_per_chunk;
  const int64_t end = std::min<int64_t>(a.num_tokens, begin + a.tokens_per_chunk);
  for (int64_t token = begin; token < end; token++) {
    for (int64_t head = 0; head < a.num_heads; head++) {
      float* out = a.out + token * a.ld_out + head * a.out_head_stride;
      std::memcpy(out, a.x + token * a.ld_x + head * a.x_head_stride, static_cast<size_t>(a.width) * sizeof(float));
      std::fill(out + a.width, out + a.padded_width, 0.0f);
    }
  }
}

struct CopyBlocksArgs {
  char* kv_cache;
  const int32_t* pairs;
  int32_t num_pairs;
  int64_t block_bytes;
};

// A chunk is a slice of every block, so that pairs that build on each other keep their order.
void copy_blocks_chunk(const CopyBlocksArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kCopyBytesPerChunk;
  const int64_t bytes = std::min(kCopyBytesPerChunk, a.block_bytes - begin);
  for (int64_t i = 0; i < a.num_pairs; i++) {
    const char* source = a.kv_cache + a.pairs[2 * i] * a.block_bytes + begin;
    char* destination = a.kv_cache + a.pairs[2 * i + 1] * a.block_bytes + begin;
    if (source != destination) std::memcpy(destination, source, static_cast<size_t>(bytes));
  }
}

}  // namespace

BAO_EXPORT int32_t bao_rms_norm(void* handle, const float* x, const float* weight, float* out, int32_t rows, int32_t n,
                                float eps) {
  return enqueue_rms_norm(handle, x, nullptr, false, weight, out, rows, n, eps);
}

BAO_EXPORT int32_t bao_fused_add_rms_norm(void* handle, const float* x, float* residual, const float* weight, float* out,
                                          int32_t rows, int32_t n, float eps) {
  return enqueue_rms_norm(handle, x, residual, true, weight, out, rows, n, eps);
}

BAO_EXPORT int32_t bao_layer_norm(void* handle, const float* x, const float* weight, const float* bias, float* out, int32_t rows,
                                  int32_t n, float eps) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(eps >= 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weight || !out) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(n);
  return stream->enqueue(stream->kernels().layer_norm, LayerNormArgs{x, weight, bias, out, rows, n, eps, per_chunk},
                         ceil_div(rows, per_chunk));
}

BAO_EXPORT int32_t bao_qk_norm_rope(void* handle, float* qkv, int64_t ld_qkv, const int32_t* positions, const float* cos_sin,
                                    const float* q_weight, const float* k_weight, float eps, int32_t num_tokens,
                                    int32_t num_heads, int32_t num_kv_heads, int32_t head_dim, int32_t rotary_dim,
                                    int32_t interleaved) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_heads < 0 || num_kv_heads < 0 || head_dim <= 0 || !(eps >= 0)) return kBadShape;
  if (rotary_dim < 0 || rotary_dim > head_dim || rotary_dim % 2 != 0) return kBadShape;
  const int64_t row = (static_cast<int64_t>(num_heads) + num_kv_heads) * head_dim;
  if (ld_qkv < row) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!qkv || (rotary_dim > 0 && (!positions || !cos_sin))) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(row, kHeadElementsPerChunk);
  const QkNormRopeArgs args{qkv,        ld_qkv,    positions,    cos_sin,  q_weight,   k_weight,    eps,
                            num_tokens, num_heads, num_kv_heads, head_dim, rotary_dim, interleaved, per_chunk};
  return stream->enqueue(stream->kernels().qk_norm_rope, args, ceil_div(num_tokens, per_chunk));
}

BAO_EXPORT int32_t bao_act_and_mul(void* handle, const float* gate_up, float* out, int32_t rows, int32_t n, int32_t kind) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || kind < 0 || kind > 2) return kBadShape;
  if (rows == 0) return kOk;
  if (!gate_up || !out) return kNullPointer;
  const int32_t columns = static_cast<int32_t>(std::min<int64_t>(n, kElementsPerChunk / 4));
  const int32_t per_chunk = columns < n ? 1 : rows_per_chunk(4 * static_cast<int64_t>(n));
  return stream->enqueue(stream->kernels().act_and_mul, ActAndMulArgs{gate_up, out, rows, n, kind, per_chunk, columns},
                         ceil_div(rows, per_chunk) * ceil_div(n, columns));
}

BAO_EXPORT int32_t bao_activate(void* handle, const float* x, float* out, int64_t count, int32_t kind) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (count < 0 || kind < 0 || kind > 4) return kBadShape;
  if (count == 0) return kOk;
  if (!x || !out) return kNullPointer;
  return stream->enqueue(stream->kernels().activate, ActivateArgs{x, out, count, kind}, ceil_div(count, kElementwiseGrain));
}

BAO_EXPORT int32_t bao_mean_rows(void* handle, const float* x, const int32_t* spans, float* out, int32_t rows, int32_t n,
                                 int32_t out_f32) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || out_f32 < 0 || out_f32 > 1) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !spans || !out) return kNullPointer;
  // Activations are float32 here: both outputs are the same.
  return stream->enqueue(stream->kernels().mean_rows, MeanRowsArgs{x, spans, out, rows, n}, rows);
}

BAO_EXPORT int32_t bao_swigluoai_and_mul(void* handle, const float* gate_up, float* out, int32_t rows, int32_t n, float alpha,
                                         float limit) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(limit > 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!gate_up || !out) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(4 * static_cast<int64_t>(n));
  return stream->enqueue(stream->kernels().swigluoai_and_mul, SwigluOaiArgs{gate_up, out, rows, n, alpha, limit, per_chunk},
                         ceil_div(rows, per_chunk));
}

BAO_EXPORT int32_t bao_add(void* handle, const float* x, const float* y, float* out, int64_t count) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (count < 0) return kBadShape;
  if (count == 0) return kOk;
  if (!x || !y || !out) return kNullPointer;
  return stream->enqueue(stream->kernels().add, AddArgs{x, y, out, count}, ceil_div(count, kElementwiseGrain));
}

BAO_EXPORT int32_t bao_soft_cap(void* handle, float* x, int64_t count, float cap) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (count < 0 || !(cap > 0)) return kBadShape;
  if (count == 0) return kOk;
  if (!x) return kNullPointer;
  return stream->enqueue(stream->kernels().soft_cap, SoftCapArgs{x, count, cap}, ceil_div(count, kElementwiseGrain));
}

BAO_EXPORT int32_t bao_embedding(void* handle, const int32_t* ids, const void* table, int32_t table_dtype, float* out,
                                 int32_t num_tokens, int32_t hidden_size, int32_t vocab_size, float scale) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || hidden_size <= 0 || vocab_size < 0) return kBadShape;
  if (!is_float_dtype(table_dtype)) return kBadDType;
  if (num_tokens == 0) return kOk;
  if (!ids || !table || !out) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(hidden_size);
  const EmbeddingArgs args{ids, table, out, table_dtype, num_tokens, hidden_size, vocab_size, scale, per_chunk};
  return stream->enqueue(stream->kernels().embedding, args, ceil_div(num_tokens, per_chunk));
}

BAO_EXPORT int32_t bao_gather_token_ids(void* handle, const int32_t* token_table, int64_t ld_table, const int32_t* slots,
                                        const int32_t* positions, int32_t* out, int32_t num_tokens) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || ld_table <= 0) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!token_table || !slots || !positions || !out) return kNullPointer;
  return stream->enqueue(gather_token_ids_chunk, GatherTokenIdsArgs{token_table, ld_table, slots, positions, out, num_tokens},
                         ceil_div(num_tokens, kElementsPerChunk));
}

BAO_EXPORT int32_t bao_gather_rows(void* handle, const float* x, const int32_t* indices, float* out, int32_t rows, int32_t n) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !indices || !out) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(n);
  return stream->enqueue(gather_rows_chunk, GatherRowsArgs{x, indices, out, rows, n, per_chunk}, ceil_div(rows, per_chunk));
}

BAO_EXPORT int32_t bao_copy_heads(void* handle, const float* x, int64_t ld_x, int32_t x_head_stride, float* out, int64_t ld_out,
                                  int32_t out_head_stride, int32_t num_tokens, int32_t num_heads, int32_t width,
                                  int32_t padded_width) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_heads <= 0 || width <= 0 || padded_width < width) return kBadShape;
  if (x_head_stride < 0 || out_head_stride < padded_width) return kBadShape;
  const int64_t last = num_heads - 1;
  if (ld_x < last * x_head_stride + width || ld_out < last * out_head_stride + padded_width) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!x || !out) return kNullPointer;
  const int32_t per_chunk = rows_per_chunk(static_cast<int64_t>(num_heads) * padded_width);
  const CopyHeadsArgs args{x,         ld_x,          out,             ld_out, num_tokens,   num_heads,
                           x_head_stride, out_head_stride, width, padded_width, per_chunk};
  return stream->enqueue(copy_heads_chunk, args, ceil_div(num_tokens, per_chunk));
}

BAO_EXPORT int32_t bao_copy_blocks(void* handle, char* kv_cache, const int32_t* pairs, int32_t num_pairs, int64_t block_bytes) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_pairs < 0 || block_bytes <= 0) return kBadShape;
  if (num_pairs == 0) return kOk;
  if (!kv_cache || !pairs) return kNullPointer;
  return stream->enqueue(copy_blocks_chunk, CopyBlocksArgs{kv_cache, pairs, num_pairs, block_bytes},
                         ceil_div(block_bytes, kCopyBytesPerChunk));
}
