// Paged attention with float32 activations, on CUDA cores: for comparisons, not for speed. A warp for each query and head, online
// softmax over tiles of 32 keys.
#include "attention.h"
#include "reduce.cuh"

namespace bao {
namespace {

constexpr int kKeyTile = 32;
constexpr int kMaxHeadDim = 256;
constexpr int kBlocksPerMultiprocessor = 16;

__global__ void float_attention_kernel(Global<const float> q, Global<const unsigned char> kv_cache, Global<const int32_t> block_tables,
                                       Global<const int32_t> seq_lens, Global<const int32_t> query_start_loc,
                                       Global<const float> sinks, Global<float> out, AttentionArgs a) {
  await_previous_kernel();
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t plane = static_cast<int64_t>(a.num_kv_heads) * a.block_size * a.head_dim;
  float* probabilities = shared_memory<float>();
  const int64_t first_row = static_cast<int64_t>(query_start_loc[0]) * a.num_heads;
  const int64_t last_row = static_cast<int64_t>(query_start_loc[a.num_seqs]) * a.num_heads;
  int seq = 0;
  for (int64_t row = first_row + blockIdx.x; row < last_row; row += gridDim.x) {
    const int query = static_cast<int>(row / a.num_heads), head = static_cast<int>(row % a.num_heads);
    while (query_start_loc[seq + 1] <= query) seq++;
    const int kv_head = head / (a.num_heads / a.num_kv_heads);
    const int position = seq_lens[seq] - (query_start_loc[seq + 1] - query);
    const Global<const float> query_row = q + (query * a.ld_q + static_cast<int64_t>(head) * a.head_dim);
    const Global<const int32_t> table = block_tables + static_cast<int64_t>(seq) * a.ld_block_table;

    float maximum = kNothing, sum = 0, values[kMaxHeadDim / 32] = {};
    for (int tile = first_key(position, a) / kKeyTile * kKeyTile; tile <= position; tile += kKeyTile) {
      const int key = tile + lane;
      const bool visible = key >= first_key(position, a) && key <= position;
      float score = kNothing;
      if (visible) {
        const int64_t at = cache_offset(a, table[key / a.block_size], kv_head, key);
        float dot = 0;
        for (int d = 0; d < a.head_dim; d++) dot += query_row[d] * read_cache(kv_cache, a.cache_dtype, at + d);
        score = capped(dot, a);
      }
      const float next = fmaxf(maximum, warp_reduce(score, Max()));
      const float shrink = expf(maximum - next), probability = visible ? expf(score - next) : 0.0f;
      sum = sum * shrink + warp_reduce(probability, Sum());
      maximum = next;
      probabilities[lane] = probability;
      __syncwarp();
      for (int d = lane; d < a.head_dim; d += 32) {
        float value = values[d / 32] * shrink;
        for (int i = 0; i < kKeyTile && tile + i <= position; i++) {
          if (tile + i < first_key(position, a)) continue;
          const int64_t at = cache_offset(a, table[(tile + i) / a.block_size], kv_head, tile + i) + plane;
          value += probabilities[i] * read_cache(kv_cache, a.cache_dtype, at + d);
        }
        values[d / 32] = value;
      }
      __syncwarp();
    }
    float shrink = 1.0f;
    if (sinks) {
      const float next = fmaxf(maximum, sinks[head]);
      shrink = expf(maximum - next);
      sum = sum * shrink + expf(sinks[head] - next);
    }
    for (int d = lane; d < a.head_dim; d += 32) {
      out[query * a.ld_out + static_cast<int64_t>(head) * a.head_dim + d] = sum > 0 ? values[d / 32] * shrink / sum : 0.0f;
    }
  }
}

}  // namespace

int32_t launch_float_attention(const Stream* stream, const AttentionPointers& p, const AttentionArgs& a) {
  const int grid = stream->num_multiprocessors * kBlocksPerMultiprocessor;
  return launched(launch("float_attention", float_attention_kernel, grid, 32, kKeyTile * sizeof(float), stream->stream,
                         static_cast<const float*>(p.q), static_cast<const unsigned char*>(p.kv_cache), p.block_tables, p.seq_lens,
                         p.query_start_loc, p.sinks, static_cast<float*>(p.out), a));
}

}  // namespace bao
