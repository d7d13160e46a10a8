// RMSNorm, LayerNorm, and the step between the QKV projection and attention.
#include "grid_stride.cuh"
#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kHeadThreads = 32;
// Packs of a row that a thread keeps.
constexpr int kPacksOfRow = 4;

__device__ inline float inverse_rms(float sum_of_squares, int n, float eps) {
  return 1.0f / sqrtf(sum_of_squares / static_cast<float>(n) + eps);
}

// A block for each row. Every thread reads and writes the same columns, so out may be x.
template <class T>
__global__ void rms_norm_kernel(Global<const T> x, Global<T> residual, Global<const float> weight, Global<T> out, int n, float eps) {
  await_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * n;
  const int begin = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  float squares = 0;
  for (int i = begin; i < n; i += step) {
    float value = to_float(x[row + i]);
    if (residual) {
      // What is normed is what is stored.
      const T sum = from_float<T>(value + to_float(residual[row + i]));
      residual[row + i] = sum;
      value = to_float(sum);
    }
    squares += value * value;
  }
  const float scale = inverse_rms(block_reduce(squares, Sum(), shared_memory<float>()), n, eps);
  for (int i = begin; i < n; i += step) {
    const float value = residual ? to_float(residual[row + i]) : to_float(x[row + i]);
    out[row + i] = from_float<T>(value * scale * weight[i]);
  }
}

// The same for rows of whole packs that a block can hold: each is read once.
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    packed_rms_norm_kernel(Global<const T> x, Global<T> residual, Global<const float> weight, Global<T> out, int n, float eps) {
  await_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * n;
  const int first = static_cast<int>(threadIdx.x) * kPack;
  constexpr int kStep = static_cast<int>(kThreads) * kPack;
  Pack<T, kPack> kept[kPacksOfRow];
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPacksOfRow; p++) {
    const int column = first + p * kStep;
    if (column >= n) continue;
    kept[p] = read_pack<kPack, T>(x + (row + column));
    if (residual) {
      const Pack<T, kPack> before = cast<const Pack<T, kPack>>(residual + (row + column))[0];
#pragma unroll
      for (int i = 0; i < kPack; i++) kept[p].element[i] = from_float<T>(to_float(kept[p].element[i]) + to_float(before.element[i]));
      write_pack<kPack, T>(residual + (row + column), kept[p]);
    }
#pragma unroll
    for (int i = 0; i < kPack; i++) squares += to_float(kept[p].element[i]) * to_float(kept[p].element[i]);
  }
  const float scale = inverse_rms(block_reduce(squares, Sum(), shared_memory<float>()), n, eps);
#pragma unroll
  for (int p = 0; p < kPacksOfRow; p++) {
    const int column = first + p * kStep;
    if (column >= n) continue;
    const Pack<float, kPack> factor = read_pack<kPack, float>(weight + column);
#pragma unroll
    for (int i = 0; i < kPack; i++) kept[p].element[i] = from_float<T>(to_float(kept[p].element[i]) * scale * factor.element[i]);
    write_pack<kPack, T>(out + (row + column), kept[p]);
  }
}

// The same with the mean taken off first, in two passes: the difference of two large sums would lose what the variance is made of.
template <class T>
__global__ void layer_norm_kernel(Global<const T> x, Global<const float> weight, Global<const float> bias, Global<T> out, int n,
                                  float eps) {
  await_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * n;
  const int begin = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  float sum = 0, squares = 0;
  for (int i = begin; i < n; i += step) sum += to_float(x[row + i]);
  const float mean = block_reduce(sum, Sum(), shared_memory<float>()) / static_cast<float>(n);
  for (int i = begin; i < n; i += step) {
    const float difference = to_float(x[row + i]) - mean;
    squares += difference * difference;
  }
  const float scale = inverse_rms(block_reduce(squares, Sum(), shared_memory<float>()), n, eps);
  for (int i = begin; i < n; i += step) {
    const float normed = (to_float(x[row + i]) - mean) * scale * weight[i];
    out[row + i] = from_float<T>(bias ? normed + bias[i] : normed);
  }
}

template <class T>
__device__ inline void norm_head(Global<T> x, Global<const float> weight, int head_dim, float eps, float* values) {
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < head_dim; i += kHeadThreads) {
    values[i] = to_float(x[i]);
    squares += values[i] * values[i];
  }
  squares = warp_reduce(squares, Sum());
  const float scale = weight ? inverse_rms(squares, head_dim, eps) : 1.0f;
  for (int i = static_cast<int>(threadIdx.x); i < head_dim; i += kHeadThreads) {
    // Rounded as if the normed head had been stored in between.
    if (weight) values[i] = to_float(from_float<T>(values[i] * scale * weight[i]));
  }
  __syncwarp();
}

// A warp for each head of each token: block (head, token), q heads first.
template <class T>
__global__ void qk_norm_rope_kernel(Global<T> qkv, int64_t ld_qkv, Global<const int32_t> positions, Global<const float> cos_sin,
                                    Global<const float> q_weight, Global<const float> k_weight, float eps, int num_heads,
                                    int head_dim, int rotary_dim, int interleaved) {
  await_previous_kernel();
  const int head = static_cast<int>(blockIdx.y);
  const int64_t token = blockIdx.x;
  const Global<T> x = qkv + (token * ld_qkv + static_cast<int64_t>(head) * head_dim);
  float* values = shared_memory<float>();
  norm_head(x, head < num_heads ? q_weight : k_weight, head_dim, eps, values);

  const int half = rotary_dim / 2;
  const int lane = static_cast<int>(threadIdx.x);
  if (half > 0) {
    const Global<const float> cos = cos_sin + static_cast<int64_t>(positions[token]) * rotary_dim;
    for (int i = lane; i < half; i += kHeadThreads) {
      const int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
      const float c = cos[i], s = cos[half + i], a = values[first], b = values[second];
      x[first] = from_float<T>(a * c - b * s);
      x[second] = from_float<T>(b * c + a * s);
    }
  }
  for (int i = rotary_dim + lane; i < head_dim; i += kHeadThreads) x[i] = from_float<T>(values[i]);
}

int32_t enqueue_rms_norm(const Stream* stream, const void* x, void* residual, const float* weight, void* out, int32_t rows, int32_t n,
                         float eps) {
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    const bool packed = n <= kPacksOfRow * static_cast<int>(kThreads) * kPack && is_packable(n, x, residual, weight, out);
    const auto kernel = packed ? packed_rms_norm_kernel<T> : rms_norm_kernel<T>;
    return launched(launch("rms_norm", kernel, rows, kThreads, kThreads / 32 * sizeof(float), stream->stream,
                           static_cast<const T*>(x), static_cast<T*>(residual), weight, static_cast<T*>(out), n, eps));
  });
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_rms_norm(const Stream* stream, const void* x, const float* weight, void* out, int32_t rows, int32_t n,
                                float eps) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(eps >= 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weight || !out) return kNullPointer;
  return enqueue_rms_norm(stream, x, nullptr, weight, out, rows, n, eps);
}

BAO_EXPORT int32_t bao_fused_add_rms_norm(const Stream* stream, const void* x, void* residual, const float* weight, void* out,
                                          int32_t rows, int32_t n, float eps) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(eps >= 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !residual || !weight || !out) return kNullPointer;
  return enqueue_rms_norm(stream, x, residual, weight, out, rows, n, eps);
}

BAO_EXPORT int32_t bao_layer_norm(const Stream* stream, const void* x, const float* weight, const float* bias, void* out, int32_t rows,
                                  int32_t n, float eps) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(eps >= 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weight || !out) return kNullPointer;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("layer_norm", layer_norm_kernel<T>, rows, kThreads, kThreads / 32 * sizeof(float), stream->stream,
                           static_cast<const T*>(x), weight, bias, static_cast<T*>(out), n, eps));
  });
}

BAO_EXPORT int32_t bao_qk_norm_rope(const Stream* stream, void* qkv, int64_t ld_qkv, const int32_t* positions, const float* cos_sin,
                                    const float* q_weight, const float* k_weight, float eps, int32_t num_tokens, int32_t num_heads,
                                    int32_t num_kv_heads, int32_t head_dim, int32_t rotary_dim, int32_t interleaved) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_heads < 0 || num_kv_heads < 0 || head_dim <= 0 || !(eps >= 0)) return kBadShape;
  if (rotary_dim < 0 || rotary_dim > head_dim || rotary_dim % 2 != 0) return kBadShape;
  if (ld_qkv < (static_cast<int64_t>(num_heads) + num_kv_heads) * head_dim) return kBadShape;
  if (num_tokens == 0 || num_heads + num_kv_heads == 0) return kOk;
  if (!qkv || (rotary_dim > 0 && (!positions || !cos_sin))) return kNullPointer;
  const dim3 grid(static_cast<unsigned>(num_tokens), static_cast<unsigned>(num_heads + num_kv_heads));
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("qk_norm_rope", qk_norm_rope_kernel<T>, grid, kHeadThreads, static_cast<size_t>(head_dim) * sizeof(float),
                           stream->stream, static_cast<T*>(qkv), ld_qkv, positions, cos_sin, q_weight, k_weight, eps, num_heads,
                           head_dim, rotary_dim, interleaved));
  });
}
