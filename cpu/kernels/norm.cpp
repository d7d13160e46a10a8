// RMSNorm, LayerNorm and the step between the QKV projection and attention.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

BAO_INLINE float inverse_rms(float sum_of_squares, int64_t n, float eps) {
  return 1.0f / __builtin_sqrtf(sum_of_squares / static_cast<float>(n) + eps);
}

BAO_INLINE float sum_of_squares(const float* x, int64_t n) {
  F a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const F v = load(x + i), w = load(x + i + kLanes);
    a = fma(v, v, a);
    b = fma(w, w, b);
  }
  for (; i < n; i += kLanes) {
    const F v = load_n(x + i, min(kLanes, n - i));
    a = fma(v, v, a);
  }
  return reduce_add(a + b);
}

BAO_INLINE void scale_by_weight(const float* x, const float* weight, float scale, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i) * scale * load(weight + i));
  if (i < n) store_n(out + i, load_n(x + i, n - i) * scale * load_n(weight + i, n - i), n - i);
}

BAO_INLINE float sum(const float* x, int64_t n) {
  F total{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total += load(x + i);
  if (i < n) total += load_n(x + i, n - i);
  return reduce_add(total);
}

BAO_INLINE float sum_of_squared_differences(const float* x, float mean, int64_t n) {
  F total{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const F difference = load(x + i) - mean;
    total = fma(difference, difference, total);
  }
  float rest = 0;
  for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
  return reduce_add(total) + rest;
}

BAO_INLINE void add_into(float* residual, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(residual + i, load(residual + i) + load(x + i));
  if (i < n) store_n(residual + i, load_n(residual + i, n - i) + load_n(x + i, n - i), n - i);
}

BAO_INLINE void rotate_halves(float* x, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const F first = load(x + i), second = load(x + half + i);
    const F c = load(cos + i), s = load(sin + i);
    store(x + i, first * c - second * s);
    store(x + half + i, second * c + first * s);
  }
  if (i < half) {
    const int64_t n = half - i;
    const F first = load_n(x + i, n), second = load_n(x + half + i, n);
    const F c = load_n(cos + i, n), s = load_n(sin + i, n);
    store_n(x + i, first * c - second * s, n);
    store_n(x + half + i, second * c + first * s, n);
  }
}

BAO_INLINE void rotate_pairs(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; i++) {
    const float first = x[2 * i], second = x[2 * i + 1];
    x[2 * i] = first * cos[i] - second * sin[i];
    x[2 * i + 1] = second * cos[i] + first * sin[i];
  }
}

}  // namespace

static void rms_norm(const RmsNormArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.rows_per_chunk;
  const int64_t end = min(a.rows, begin + a.rows_per_chunk);
  for (int64_t row = begin; row < end; row++) {
    const float* x = a.x + row * a.n;
    if (a.residual) {
      float* residual = a.residual + row * a.n;
      add_into(residual, x, a.n);
      x = residual;
    }
    scale_by_weight(x, a.weight, inverse_rms(sum_of_squares(x, a.n), a.n, a.eps), a.out + row * a.n, a.n);
  }
}

static void qk_norm_rope(const QkNormRopeArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.tokens_per_chunk;
  const int64_t end = min(a.num_tokens, begin + a.tokens_per_chunk);
  const int64_t half = a.rotary_dim / 2;
  for (int64_t token = begin; token < end; token++) {
    const float* cos = half > 0 ? a.cos_sin + static_cast<int64_t>(a.positions[token]) * a.rotary_dim : nullptr;
    for (int64_t head = 0; head < a.num_heads + a.num_kv_heads; head++) {
      float* x = a.qkv + token * a.ld_qkv + head * a.head_dim;
      const float* weight = head < a.num_heads ? a.q_weight : a.k_weight;
      if (weight) {
        scale_by_weight(x, weight, inverse_rms(sum_of_squares(x, a.head_dim), a.head_dim, a.eps), x, a.head_dim);
      }
      if (half == 0) continue;
      if (a.interleaved) {
        rotate_pairs(x, cos, cos + half, half);
      } else {
        rotate_halves(x, cos, cos + half, half);
      }
    }
  }
}

static void layer_norm(const LayerNormArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.rows_per_chunk;
  const int64_t end = min(a.rows, begin + a.rows_per_chunk);
  for (int64_t row = begin; row < end; row++) {
    const float* x = a.x + row * a.n;
    float* out = a.out + row * a.n;
    const float mean = sum(x, a.n) / static_cast<float>(a.n);
    // Two passes: the difference of two large sums would lose what the variance is made of.
    const float scale = inverse_rms(sum_of_squared_differences(x, mean, a.n), a.n, a.eps);
    int64_t i = 0;
    for (; i + kLanes <= a.n; i += kLanes) {
      const F normed = (load(x + i) - mean) * scale * load(a.weight + i);
      store(out + i, a.bias ? normed + load(a.bias + i) : normed);
    }
    for (; i < a.n; i++) out[i] = (x[i] - mean) * scale * a.weight[i] + (a.bias ? a.bias[i] : 0.0f);
  }
}

void use_norm(KernelTable& table) {
  table.rms_norm = rms_norm;
  table.qk_norm_rope = qk_norm_rope;
  table.layer_norm = layer_norm;
}

}  // namespace bao::BAO_ISA
