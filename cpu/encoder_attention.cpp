// Attention of encoders: no cache, every token sees the ones before and behind it.
#include <cmath>

#include "kernels.h"
#include "stream.h"

using namespace bao;

namespace {
constexpr int32_t kMaxHeadDim = 256;
}

BAO_EXPORT int32_t bao_encoder_attention(void* handle, const float* q, const float* k, const float* v, int64_t ld_qkv,
                                         const int32_t* query_start_loc, int32_t num_seqs, int32_t num_heads,
                                         int32_t num_kv_heads, int32_t head_dim, float scale, int32_t reach, float* out,
                                         int64_t ld_out) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_seqs < 0 || num_heads <= 0 || num_kv_heads <= 0 || num_heads % num_kv_heads != 0) return kBadShape;
  if (head_dim <= 0 || head_dim > kMaxHeadDim || reach < 0 || !std::isfinite(scale)) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_heads) * head_dim;
  if (ld_qkv < row || ld_out < row) return kBadShape;
  if (num_seqs == 0) return kOk;
  if (!q || !k || !v || !query_start_loc || !out) return kNullPointer;
  const size_t scratch = static_cast<size_t>(encoder_scratch_floats(head_dim)) * sizeof(float);
  if (const int32_t error = stream->reserve(scratch, 0)) return error;
  const EncoderAttentionArgs args{q,        k,         v,            ld_qkv,   query_start_loc, out,  ld_out,
                                  num_seqs, num_heads, num_kv_heads, head_dim, scale,           reach};
  return stream->enqueue(stream->kernels().encoder_attention, args, stream->num_threads());
}
