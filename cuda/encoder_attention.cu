// Attention of encoders: no cache, every token sees the ones before and behind it. On CUDA cores: a warp for each query and head,
// online softmax over tiles of 32 keys.
#include <cmath>

#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kKeyTile = 32;
constexpr int kMaxHeadDim = 256;
constexpr int kBlocksPerMultiprocessor = 16;
// Stands for the logarithm of nothing; finite, so that differences of it are numbers.
constexpr float kNothing = -1e30f;

struct EncoderAttentionArgs {
  int64_t ld_qkv, ld_out;
  int32_t num_seqs, num_heads, num_kv_heads, head_dim, reach;
  float scale;
};

template <class T>
__global__ void encoder_attention_kernel(Global<const T> q, Global<const T> k, Global<const T> v,
                                         Global<const int32_t> query_start_loc, Global<T> out, EncoderAttentionArgs a) {
  await_previous_kernel();
  const int lane = static_cast<int>(threadIdx.x);
  float* probabilities = shared_memory<float>();
  const int64_t last_row = static_cast<int64_t>(query_start_loc[a.num_seqs]) * a.num_heads;
  int seq = 0;
  for (int64_t row = static_cast<int64_t>(query_start_loc[0]) * a.num_heads + blockIdx.x; row < last_row; row += gridDim.x) {
    const int query = static_cast<int>(row / a.num_heads), head = static_cast<int>(row % a.num_heads);
    while (query_start_loc[seq + 1] <= query) seq++;
    const int start = query_start_loc[seq], end = query_start_loc[seq + 1];
    const int first = a.reach > 0 && query - a.reach > start ? query - a.reach : start;
    const int behind = a.reach > 0 && query + a.reach + 1 < end ? query + a.reach + 1 : end;
    const int64_t kv_column = static_cast<int64_t>(head / (a.num_heads / a.num_kv_heads)) * a.head_dim;
    const Global<const T> query_row = q + (query * a.ld_qkv + static_cast<int64_t>(head) * a.head_dim);

    float maximum = kNothing, sum = 0, values[kMaxHeadDim / 32] = {};
    // Tiles start at the sequence's first key: the sums have one order whatever the batch.
    for (int tile = start + (first - start) / kKeyTile * kKeyTile; tile < behind; tile += kKeyTile) {
      const int key = tile + lane;
      const bool visible = key >= first && key < behind;
      float score = kNothing;
      if (visible) {
        float dot = 0;
        for (int d = 0; d < a.head_dim; d++) dot += to_float(query_row[d]) * to_float(k[key * a.ld_qkv + kv_column + d]);
        score = dot * a.scale;
      }
      const float next = fmaxf(maximum, warp_reduce(score, Max()));
      const float shrink = expf(maximum - next), probability = visible ? expf(score - next) : 0.0f;
      sum = sum * shrink + warp_reduce(probability, Sum());
      maximum = next;
      probabilities[lane] = probability;
      __syncwarp();
      for (int d = lane; d < a.head_dim; d += 32) {
        float value = values[d / 32] * shrink;
        for (int i = 0; i < kKeyTile && tile + i < behind; i++) {
          if (tile + i >= first) value += probabilities[i] * to_float(v[(tile + i) * a.ld_qkv + kv_column + d]);
        }
        values[d / 32] = value;
      }
      __syncwarp();
    }
    for (int d = lane; d < a.head_dim; d += 32) {
      out[query * a.ld_out + static_cast<int64_t>(head) * a.head_dim + d] = from_float<T>(values[d / 32] / sum);
    }
  }
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_encoder_attention(const Stream* stream, const void* q, const void* k, const void* v, int64_t ld_qkv,
                                         const int32_t* query_start_loc, int32_t num_seqs, int32_t num_heads, int32_t num_kv_heads,
                                         int32_t head_dim, float scale, int32_t reach, void* out, int64_t ld_out) {
  if (!stream) return kStreamClosed;
  if (num_seqs < 0 || num_heads <= 0 || num_kv_heads <= 0 || num_heads % num_kv_heads != 0) return kBadShape;
  if (head_dim <= 0 || head_dim > kMaxHeadDim || reach < 0 || !std::isfinite(scale)) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_heads) * head_dim;
  if (ld_qkv < row || ld_out < row) return kBadShape;
  if (num_seqs == 0) return kOk;
  if (!q || !k || !v || !query_start_loc || !out) return kNullPointer;
  const EncoderAttentionArgs args{ld_qkv, ld_out, num_seqs, num_heads, num_kv_heads, head_dim, reach, scale};
  const int grid = stream->num_multiprocessors * kBlocksPerMultiprocessor;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("encoder_attention", encoder_attention_kernel<T>, grid, 32, kKeyTile * sizeof(float), stream->stream,
                           static_cast<const T*>(q), static_cast<const T*>(k), static_cast<const T*>(v), query_start_loc,
                           static_cast<T*>(out), args));
  });
}
