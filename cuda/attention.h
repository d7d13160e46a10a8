// What the attention kernels share: their arguments and the batch's rows.
#pragma once

#include "stream.h"

namespace bao {

struct AttentionArgs {
  int64_t ld_q, ld_out;
  int32_t cache_dtype, ld_block_table, num_seqs, num_heads, num_kv_heads, head_dim, block_size, sliding_window;
  float scale, soft_cap;
};

struct AttentionPointers {
  const void* q;
  const void* kv_cache;
  const int32_t* block_tables;
  const int32_t* seq_lens;
  const int32_t* query_start_loc;
  const float* sinks;
  void* out;
};

// Stands for the logarithm of nothing; finite, so that differences of it are numbers.
constexpr float kNothing = -1e30f;

// The score of a key as the softmax sees it.
__device__ inline float capped(float score, const AttentionArgs& a) {
  score *= a.scale;
  return a.soft_cap > 0 ? a.soft_cap * tanhf(score / a.soft_cap) : score;
}

// First key that a query at `position` sees.
__device__ inline int first_key(int position, const AttentionArgs& a) {
  return a.sliding_window > 0 && position >= a.sliding_window ? position - a.sliding_window + 1 : 0;
}

// Element `dim` of the keys (or, a plane further, of the values) of a token.
__device__ inline int64_t cache_offset(const AttentionArgs& a, int block, int kv_head, int key) {
  const int64_t plane = static_cast<int64_t>(a.num_kv_heads) * a.block_size * a.head_dim;
  return block * 2 * plane + (static_cast<int64_t>(kv_head) * a.block_size + key % a.block_size) * a.head_dim;
}

__device__ inline float read_cache(const Global<const unsigned char>& cache, int32_t dtype, int64_t at) {
  if (dtype == kFloat32) return cast<const float>(cache)[at];
  if (dtype == kBFloat16) return to_float(cast<const BFloat16>(cache)[at]);
  if (dtype == kFp8E4M3) return to_float(cast<const Float8E4M3>(cache)[at]);
  return to_float(cast<const Half>(cache)[at]);
}

// The kernel on CUDA cores, for activations that tensor cores do not take exactly. attention_float.cu.
int32_t launch_float_attention(const Stream* stream, const AttentionPointers& p, const AttentionArgs& a);

}  // namespace bao
