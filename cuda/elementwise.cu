// Activations, bias, lookups, gathers and copies.
#include "grid_stride.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kMaxHeadDim = 256;

template <int Kind>
__device__ inline float activate(float x) {
  if (Kind == 0) return x / (1.0f + expf(-x));
  if (Kind == 1) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
  if (Kind == 2) return 0.5f * x * erfcf(-x * 0.7071067812f);
  if (Kind == 3) return tanhf(x);
  return fmaxf(x, 0.0f);
}

template <class T, int Kind, int kWidth>
__global__ void act_and_mul_kernel(Global<const T> gate_up, Global<T> out, int64_t rows, int n) {
  await_previous_kernel();
  for_each_pack<kWidth>(rows, n, [&](int64_t row, int column) {
    const Global<const T> gate_row = gate_up + (row * 2 * n + column);
    const Pack<T, kWidth> gate = read_pack<kWidth, T>(gate_row), up = read_pack<kWidth, T>(gate_row + n);
    Pack<T, kWidth> result;
    for (int i = 0; i < kWidth; i++) {
      result.element[i] = from_float<T>(activate<Kind>(to_float(gate.element[i])) * to_float(up.element[i]));
    }
    write_pack<kWidth, T>(out + (row * n + column), result);
  });
}

template <class T, int Kind>
__global__ void activate_kernel(Global<const T> x, Global<T> out, int64_t count) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < count; i += element_step()) out[i] = from_float<T>(activate<Kind>(to_float(x[i])));
}

template <class T, class Out>
__global__ void mean_rows_kernel(Global<const T> x, Global<const int32_t> spans, Global<Out> out, int64_t elements, int n) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t row = i / n, first = spans[2 * row], count = spans[2 * row + 1];
    float total = 0;
    for (int64_t r = first; r < first + count; r++) total += to_float(x[r * n + i % n]);
    out[i] = from_float<Out>(count > 1 ? total / static_cast<float>(count) : total);
  }
}

template <class T>
__global__ void swigluoai_and_mul_kernel(Global<const T> gate_up, Global<T> out, int64_t elements, int n, float alpha, float limit) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t row = i / n, column = i % n;
    const float gate = fminf(to_float(gate_up[row * 2 * n + column]), limit);
    const float up = fmaxf(fminf(to_float(gate_up[row * 2 * n + n + column]), limit), -limit);
    out[i] = from_float<T>(gate / (1.0f + expf(-alpha * gate)) * (up + 1.0f));
  }
}

template <class T>
__global__ void copy_heads_kernel(Global<const T> x, int64_t ld_x, int x_head_stride, Global<T> out, int64_t ld_out, int out_head_stride,
                                  int64_t elements, int num_heads, int width, int padded_width) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t column = i % padded_width, head = i / padded_width % num_heads, token = i / padded_width / num_heads;
    const T value = column < width ? x[token * ld_x + head * x_head_stride + column] : from_float<T>(0.0f);
    out[token * ld_out + head * out_head_stride + column] = value;
  }
}

template <class T>
__global__ void add_kernel(Global<const T> x, Global<const T> y, Global<T> out, int64_t count) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < count; i += element_step()) out[i] = from_float<T>(to_float(x[i]) + to_float(y[i]));
}

__global__ void soft_cap_kernel(Global<float> x, int64_t count, float cap) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < count; i += element_step()) x[i] = cap * tanhf(x[i] / cap);
}

// out[row, :] += bias.
template <class T>
__global__ void add_bias_kernel(Global<T> out, Global<const float> bias, int64_t ld_out, int64_t elements, int n) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t column = i % n, at = i / n * ld_out + column;
    out[at] = from_float<T>(to_float(out[at]) + bias[column]);
  }
}

template <class T, class Table>
__global__ void embedding_kernel(Global<const int32_t> ids, Global<const Table> table, Global<T> out, int64_t elements, int hidden_size,
                                 int vocab_size, float scale) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t id = ids[i / hidden_size];
    const bool known = id >= 0 && id < vocab_size;
    out[i] = from_float<T>(known ? to_float(table[id * hidden_size + i % hidden_size]) * scale : 0.0f);
  }
}

__global__ void gather_token_ids_kernel(Global<const int32_t> token_table, int64_t ld_table, Global<const int32_t> slots,
                                        Global<const int32_t> positions, Global<int32_t> out, int num_tokens) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < num_tokens; i += element_step()) out[i] = token_table[slots[i] * ld_table + positions[i]];
}

template <class T, int kWidth>
__global__ void gather_rows_kernel(Global<const T> x, Global<const int32_t> indices, Global<T> out, int64_t rows, int n) {
  await_previous_kernel();
  for_each_pack<kWidth>(rows, n, [&](int64_t row, int column) {
    write_pack<kWidth, T>(out + (row * n + column), read_pack<kWidth, T>(x + (static_cast<int64_t>(indices[row]) * n + column)));
  });
}

__global__ void copy_bytes_kernel(Global<const unsigned char> from, Global<unsigned char> to, int64_t bytes) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < bytes; i += element_step()) to[i] = from[i];
}

// A thread keeps to its bytes of every block, so that pairs that build on each other keep their order.
__global__ void copy_blocks_kernel(Global<unsigned char> kv_cache, Global<const int32_t> pairs, int num_pairs, int64_t block_bytes) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < block_bytes; i += element_step()) {
    for (int pair = 0; pair < num_pairs; pair++) {
      kv_cache[pairs[2 * pair + 1] * block_bytes + i] = kv_cache[pairs[2 * pair] * block_bytes + i];
    }
  }
}

// A block of the cache: keys [num_kv_heads, block_size, head_dim], then values.
template <class T, class Cache, int kWidth>
__global__ void reshape_and_cache_kernel(Global<const T> key, Global<const T> value, int64_t ld_kv, Global<const int32_t> slot_mapping,
                                         Global<Cache> kv_cache, int num_tokens, int num_kv_heads, int head_dim, int block_size) {
  await_previous_kernel();
  const int n = num_kv_heads * head_dim;
  const int64_t plane = static_cast<int64_t>(n) * block_size;
  for_each_pack<kWidth>(num_tokens, n, [&](int64_t token, int column) {
    const int32_t slot = slot_mapping[token];
    if (slot < 0) return;
    const int head = column / head_dim, dim = column % head_dim;
    const int64_t at = slot / block_size * 2 * plane + (static_cast<int64_t>(head) * block_size + slot % block_size) * head_dim + dim;
    const auto k = read_pack<kWidth, T>(key + (token * ld_kv + column)), v = read_pack<kWidth, T>(value + (token * ld_kv + column));
    Pack<Cache, kWidth> cached_k, cached_v;
    for (int i = 0; i < kWidth; i++) {
      cached_k.element[i] = from_float<Cache>(to_float(k.element[i]));
      cached_v.element[i] = from_float<Cache>(to_float(v.element[i]));
    }
    write_pack<kWidth, Cache>(kv_cache + at, cached_k);
    write_pack<kWidth, Cache>(kv_cache + (at + plane), cached_v);
  });
}

template <class From, class To>
__global__ void convert_matrix_kernel(Global<const From> from, int64_t ld, Global<To> to, int64_t elements, int64_t cols) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    to[i] = from_float<To>(to_float(from[i / cols * ld + i % cols]));
  }
}

template <class T, int kWidth>
int32_t launch_act_and_mul(const Stream* stream, const void* gate_up, void* out, int64_t rows, int32_t n, int32_t kind) {
  const auto kernel = kind == 0   ? act_and_mul_kernel<T, 0, kWidth>
                      : kind == 1 ? act_and_mul_kernel<T, 1, kWidth>
                                  : act_and_mul_kernel<T, 2, kWidth>;
  return launched(launch("act_and_mul", kernel, row_grid(rows, n, kWidth), kElementThreads, 0, stream->stream,
                         static_cast<const T*>(gate_up), static_cast<T*>(out), rows, n));
}

template <class T>
int32_t launch_activate(const Stream* stream, const void* x, void* out, int64_t count, int32_t kind) {
  using Kernel = void (*)(Global<const T>, Global<T>, int64_t);
  const Kernel kernels[] = {activate_kernel<T, 0>, activate_kernel<T, 1>, activate_kernel<T, 2>, activate_kernel<T, 3>,
                            activate_kernel<T, 4>};
  return launched(launch("activate", kernels[kind], element_blocks(count), kElementThreads, 0, stream->stream, static_cast<const T*>(x),
                         static_cast<T*>(out), count));
}

template <class T, class Out>
int32_t launch_mean_rows(const Stream* stream, const void* x, const int32_t* spans, void* out, int64_t elements, int32_t n) {
  return launched(launch("mean_rows", mean_rows_kernel<T, Out>, element_blocks(elements), kElementThreads, 0, stream->stream,
                         static_cast<const T*>(x), spans, static_cast<Out*>(out), elements, n));
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_act_and_mul(const Stream* stream, const void* gate_up, void* out, int32_t rows, int32_t n, int32_t kind) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || kind < 0 || kind > 2) return kBadShape;
  if (rows == 0) return kOk;
  if (!gate_up || !out) return kNullPointer;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return is_packable(n, gate_up, out) ? launch_act_and_mul<T, kPack>(stream, gate_up, out, rows, n, kind)
                                        : launch_act_and_mul<T, 1>(stream, gate_up, out, rows, n, kind);
  });
}

BAO_EXPORT int32_t bao_swigluoai_and_mul(const Stream* stream, const void* gate_up, void* out, int32_t rows, int32_t n, float alpha,
                                         float limit) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || !(limit > 0)) return kBadShape;
  if (rows == 0) return kOk;
  if (!gate_up || !out) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(rows) * n;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("swigluoai_and_mul", swigluoai_and_mul_kernel<T>, element_blocks(elements), kElementThreads, 0, stream->stream,
                           static_cast<const T*>(gate_up), static_cast<T*>(out), elements, n, alpha, limit));
  });
}

BAO_EXPORT int32_t bao_copy_heads(const Stream* stream, const void* x, int64_t ld_x, int32_t x_head_stride, void* out, int64_t ld_out,
                                  int32_t out_head_stride, int32_t num_tokens, int32_t num_heads, int32_t width, int32_t padded_width) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_heads <= 0 || width <= 0 || padded_width < width) return kBadShape;
  if (x_head_stride < 0 || out_head_stride < padded_width) return kBadShape;
  const int64_t last = num_heads - 1;
  if (ld_x < last * x_head_stride + width || ld_out < last * out_head_stride + padded_width) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!x || !out) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(num_tokens) * num_heads * padded_width;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("copy_heads", copy_heads_kernel<T>, element_blocks(elements), kElementThreads, 0, stream->stream,
                           static_cast<const T*>(x), ld_x, x_head_stride, static_cast<T*>(out), ld_out, out_head_stride, elements,
                           num_heads, width, padded_width));
  });
}

BAO_EXPORT int32_t bao_activate(const Stream* stream, const void* x, void* out, int64_t count, int32_t kind) {
  if (!stream) return kStreamClosed;
  if (count < 0 || kind < 0 || kind > 4) return kBadShape;
  if (count == 0) return kOk;
  if (!x || !out) return kNullPointer;
  return with_activation(stream,
                         [&](auto* type) { return launch_activate<Pointee<decltype(type)>>(stream, x, out, count, kind); });
}

BAO_EXPORT int32_t bao_mean_rows(const Stream* stream, const void* x, const int32_t* spans, void* out, int32_t rows, int32_t n,
                                 int32_t out_f32) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || out_f32 < 0 || out_f32 > 1) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !spans || !out) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(rows) * n;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return out_f32 ? launch_mean_rows<T, float>(stream, x, spans, out, elements, n)
                   : launch_mean_rows<T, T>(stream, x, spans, out, elements, n);
  });
}

BAO_EXPORT int32_t bao_add(const Stream* stream, const void* x, const void* y, void* out, int64_t count) {
  if (!stream) return kStreamClosed;
  if (count < 0) return kBadShape;
  if (count == 0) return kOk;
  if (!x || !y || !out) return kNullPointer;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("add", add_kernel<T>, element_blocks(count), kElementThreads, 0, stream->stream, static_cast<const T*>(x),
                           static_cast<const T*>(y), static_cast<T*>(out), count));
  });
}

BAO_EXPORT int32_t bao_soft_cap(const Stream* stream, float* x, int64_t count, float cap) {
  if (!stream) return kStreamClosed;
  if (count < 0 || !(cap > 0)) return kBadShape;
  if (count == 0) return kOk;
  if (!x) return kNullPointer;
  return launched(launch("soft_cap", soft_cap_kernel, element_blocks(count), kElementThreads, 0, stream->stream, x, count, cap));
}

// The epilogue of `linear`: cublasGemmEx has none. `dtype` is that of out.
BAO_EXPORT int32_t bao_add_bias(const Stream* stream, void* out, const float* bias, int64_t ld_out, int32_t rows, int32_t n,
                                int32_t dtype) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || ld_out < n) return kBadShape;
  if (rows == 0) return kOk;
  if (!out || !bias) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(rows) * n;
  return with_dtype(dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("add_bias", add_bias_kernel<T>, element_blocks(elements), kElementThreads, 0, stream->stream, static_cast<T*>(out), bias,
                           ld_out, elements, n));
  });
}

BAO_EXPORT int32_t bao_embedding(const Stream* stream, const int32_t* ids, const void* table, int32_t table_dtype, void* out,
                                 int32_t num_tokens, int32_t hidden_size, int32_t vocab_size, float scale) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || hidden_size <= 0 || vocab_size < 0) return kBadShape;
  if (!is_float_dtype(table_dtype)) return kBadDType;
  if (num_tokens == 0) return kOk;
  if (!ids || !table || !out) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(num_tokens) * hidden_size;
  return with_activation(stream, [&](auto* type) {
    return with_dtype(table_dtype, [&](auto* table_type) {
      using T = Pointee<decltype(type)>;
      using Table = Pointee<decltype(table_type)>;
      return launched(launch("embedding", embedding_kernel<T, Table>, element_blocks(elements), kElementThreads, 0, stream->stream, ids,
                             static_cast<const Table*>(table), static_cast<T*>(out), elements, hidden_size, vocab_size, scale));
    });
  });
}

BAO_EXPORT int32_t bao_gather_token_ids(const Stream* stream, const int32_t* token_table, int64_t ld_table, const int32_t* slots,
                                        const int32_t* positions, int32_t* out, int32_t num_tokens) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || ld_table <= 0) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!token_table || !slots || !positions || !out) return kNullPointer;
  return launched(launch("gather_token_ids", gather_token_ids_kernel, element_blocks(num_tokens), kElementThreads, 0, stream->stream, token_table,
                         ld_table, slots, positions, out, num_tokens));
}

BAO_EXPORT int32_t bao_gather_rows(const Stream* stream, const void* x, const int32_t* indices, void* out, int32_t rows, int32_t n) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !indices || !out) return kNullPointer;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    const int width = is_packable(n, x, out) ? kPack : 1;
    const auto kernel = width == 1 ? gather_rows_kernel<T, 1> : gather_rows_kernel<T, kPack>;
    return launched(launch("gather_rows", kernel, row_grid(rows, n, width), kElementThreads, 0, stream->stream, static_cast<const T*>(x),
                           indices, static_cast<T*>(out), static_cast<int64_t>(rows), n));
  });
}

BAO_EXPORT int32_t bao_copy_bytes(const Stream* stream, const void* from, void* to, int64_t bytes) {
  if (!stream) return kStreamClosed;
  if (bytes < 0) return kBadShape;
  if (bytes == 0) return kOk;
  if (!from || !to) return kNullPointer;
  return launched(launch("copy_bytes", copy_bytes_kernel, element_blocks(bytes), kElementThreads, 0, stream->stream,
                         static_cast<const unsigned char*>(from), static_cast<unsigned char*>(to), bytes));
}

BAO_EXPORT int32_t bao_copy_blocks(const Stream* stream, void* kv_cache, const int32_t* pairs, int32_t num_pairs, int64_t block_bytes) {
  if (!stream) return kStreamClosed;
  if (num_pairs < 0 || block_bytes <= 0) return kBadShape;
  if (num_pairs == 0) return kOk;
  if (!kv_cache || !pairs) return kNullPointer;
  return launched(launch("copy_blocks", copy_blocks_kernel, element_blocks(block_bytes), kElementThreads, 0, stream->stream,
                         static_cast<unsigned char*>(kv_cache), pairs, num_pairs, block_bytes));
}

BAO_EXPORT int32_t bao_reshape_and_cache(const Stream* stream, const void* key, const void* value, int64_t ld_kv,
                                         const int32_t* slot_mapping, void* kv_cache, int32_t cache_dtype, int32_t num_tokens,
                                         int32_t num_kv_heads, int32_t head_dim, int32_t block_size) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_kv_heads <= 0 || head_dim <= 0 || head_dim > kMaxHeadDim || block_size <= 0) return kBadShape;
  const int64_t row = static_cast<int64_t>(num_kv_heads) * head_dim;
  if (ld_kv < row) return kBadShape;
  if (!is_cache_dtype(cache_dtype)) return kBadDType;
  if (num_tokens == 0) return kOk;
  if (!key || !value || !slot_mapping || !kv_cache) return kNullPointer;
  return with_activation(stream, [&](auto* type) {
    return with_cache_dtype(cache_dtype, [&](auto* cache_type) {
      using T = Pointee<decltype(type)>;
      using Cache = Pointee<decltype(cache_type)>;
      const int width = is_packable(head_dim, key, value, kv_cache) && is_packable(ld_kv) ? kPack : 1;
      const auto kernel = width == 1 ? reshape_and_cache_kernel<T, Cache, 1> : reshape_and_cache_kernel<T, Cache, kPack>;
      return launched(launch("reshape_and_cache", kernel, row_grid(num_tokens, row, width), kElementThreads, 0, stream->stream,
                             static_cast<const T*>(key), static_cast<const T*>(value), ld_kv, slot_mapping,
                             static_cast<Cache*>(kv_cache), num_tokens, num_kv_heads, head_dim, block_size));
    });
  });
}

// Bytes of one KV block of one layer, or -1 for a shape or type that there is none of.
BAO_EXPORT int64_t bao_kv_block_bytes(int32_t num_kv_heads, int32_t head_dim, int32_t block_size, int32_t dtype) {
  if (num_kv_heads <= 0 || head_dim <= 0 || head_dim > kMaxHeadDim || block_size <= 0 || !is_cache_dtype(dtype)) return -1;
  return 2 * static_cast<int64_t>(num_kv_heads) * head_dim * block_size * cache_dtype_bytes(dtype);
}

// Enqueues to [rows, cols] = from [rows, cols] (rows ld apart) in another type.
BAO_EXPORT int32_t bao_convert_matrix(const Stream* stream, const void* from, int32_t from_dtype, int32_t rows, int32_t cols,
                                      int64_t ld, void* to, int32_t to_dtype) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || ld < cols) return kBadShape;
  if (rows == 0) return kOk;
  if (!from || !to) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(rows) * cols;
  return with_dtype(from_dtype, [&](auto* from_type) {
    return with_dtype(to_dtype, [&](auto* to_type) {
      using From = Pointee<decltype(from_type)>;
      using To = Pointee<decltype(to_type)>;
      return launched(launch("convert_matrix", convert_matrix_kernel<From, To>, element_blocks(elements), kElementThreads, 0, stream->stream,
                             static_cast<const From*>(from), ld, static_cast<To*>(to), elements, static_cast<int64_t>(cols)));
    });
  });
}
