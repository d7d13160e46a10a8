// Weights of 8 or 4 bits, made on the device, and products with them. The arithmetic is the CPU's (cpu/quant.h, cpu/kernels/quant.cpp); the layout is
// row-major: of each output feature the words of its numbers, a word being 4 or 8 consecutive k, then a word for each group of k with its scale
// (bfloat16, upper half) and zero point. 8-bit numbers are stored less 128, which is their zero point, so that they are signed.
#include "../cpu/quant.h"

#include <type_traits>

#include "expert_tiles.cuh"
#include "fp8_linear.h"
#include "grid_stride.cuh"
#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// Rows of x that share a read of the weights.
constexpr int kRows = 8;
// Words that a lane takes at once: within one group.
constexpr int kChunkWords = 4;
// Adding it to a small float and taking it away again rounds to an integer, ties to even.
constexpr float kRound = 12582912.0f;
// Below that a scale's reciprocal is not finite; such groups are all zero.
constexpr float kSmallestScale = 1e-36f;


__device__ inline float rounded(float x) {
  // As a volatile, so that no compiler takes it apart.
  volatile float sum = x + kRound;
  return sum - kRound;
}

__device__ inline float round_up_to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  return __uint_as_float((bits + 0xffffu) & 0xffff0000u);
}

struct Range {
  float low = 0, high = 0;
  bool finite = true;

  __device__ void add(float x) {
    finite = finite && x - x == 0;
    low = fminf(low, x);
    high = fmaxf(high, x);
  }
  __device__ float greatest() const { return fmaxf(-low, high); }
};

__device__ inline float nearest_number(float x, float inverse, float zero, float least, float most) {
  return rounded(fminf(fmaxf(x * inverse + zero, least), most));
}

// A group's scale and zero point.
struct GroupScale {
  float scale, zero;
};

template <class F>
__device__ GroupScale symmetric_scale(const Range& range, F) {
  const float scale = round_up_to_bf16(range.greatest() / 127.0f);
  return {scale < kSmallestScale ? 0.0f : scale, 0.0f};
}

// 16 steps from the least to the greatest, with a step for 0 itself; of some clipped ranges, the one with the least squared error.
template <class F>
__device__ GroupScale asymmetric_scale(const Range& range, F value) {
  GroupScale best{0, 0};
  float best_error = INFINITY;
  for (int step = 0; step < 4; step++) {
    const float part = 1.0f - 0.08f * static_cast<float>(step);
    const float scale = round_up_to_bf16((range.high - range.low) * part / 15.0f);
    if (scale < kSmallestScale) break;
    const float zero = rounded(-range.low * part / scale), inverse = 1.0f / scale;
    float error = 0;
    for (int i = 0; i < quant_group(4); i++) {
      const float difference = (nearest_number(value(i), inverse, zero, 0.0f, 15.0f) - zero) * scale - value(i);
      error += difference * difference;
    }
    if (error < best_error) {
      best_error = error;
      best = {scale, zero};
    }
  }
  return best;
}

// A thread for each group of each row.
template <class From, int Bits>
__global__ void quantize_weight_kernel(Global<const From> source, int64_t ld, Global<uint32_t> destination, int64_t groups, int64_t rows,
                                       int64_t k) {
  await_previous_kernel();
  constexpr int kGroup = static_cast<int>(quant_group(Bits)), kWord = static_cast<int>(quant_word(Bits));
  const int64_t words = ceil_div(k, kWord), stride = quant_column_words(k, Bits);
  for (int64_t i = first_element(); i < rows * groups; i += element_step()) {
    const int64_t row = i / groups, group = i % groups, first = group * kGroup;
    const auto value = [&](int j) { return first + j < k ? to_float(source[row * ld + first + j]) : 0.0f; };
    Range range;
    for (int j = 0; j < kGroup; j++) range.add(value(j));
    GroupScale chosen{NAN, 0};
    if (range.finite) chosen = Bits == 8 ? symmetric_scale(range, value) : asymmetric_scale(range, value);
    const float inverse = chosen.scale > 0 ? 1.0f / chosen.scale : 0.0f;
    const float least = Bits == 8 ? -127.0f : 0.0f, most = Bits == 8 ? 127.0f : 15.0f;
    for (int j = 0; j < kGroup && first + j < k; j += kWord) {
      uint32_t word = 0;
      for (int n = 0; n < kWord; n++) {
        const float number = range.finite ? nearest_number(value(j + n), inverse, chosen.zero, least, most) : 0.0f;
        // 4-bit numbers have the first four k in the low halves of the bytes.
        const int shift = Bits == 8 ? 8 * n : 8 * (n % 4) + 4 * (n / 4);
        word |= (static_cast<uint32_t>(static_cast<int32_t>(number)) & (Bits == 8 ? 0xffu : 0xfu)) << shift;
      }
      destination[row * stride + (first + j) / kWord] = word;
    }
    destination[row * stride + words + group] =
        (__float_as_uint(chosen.scale) & 0xffff0000u) | static_cast<uint32_t>(static_cast<int32_t>(chosen.zero));
  }
}

// x as int8, rows padded to whole groups, and a scale for each group. A warp for each group of each row.
template <class T, int Bits>
__global__ void __launch_bounds__(kThreads)
    quantize_activations_kernel(Global<const T> x, int64_t ld_x, Global<uint32_t> quantized, Global<float> scales, int64_t groups,
                                int64_t count, int64_t k) {
  await_previous_kernel();
  constexpr int kGroup = static_cast<int>(quant_group(Bits)), kGroupWords = kGroup / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (number >= count) return;
  const int64_t row = number / groups, first = number % groups * kGroup;
  const auto value = [&](int64_t j) { return j < k ? to_float(x[row * ld_x + j]) : 0.0f; };
  Range range;
  for (int j = lane; j < kGroup; j += 32) range.add(value(first + j));
  const bool finite = warp_reduce(range.finite ? 0 : 1, Max()) == 0;
  float scale = warp_reduce(range.greatest(), Max()) / 127.0f;
  if (scale < kSmallestScale) scale = 0;
  const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
  for (int w = lane; w < kGroupWords; w += 32) {
    uint32_t word = 0;
    for (int n = 0; n < 4; n++) {
      const float nearest = finite ? rounded(value(first + 4 * w + n) * inverse) : 0.0f;
      word |= (static_cast<uint32_t>(static_cast<int32_t>(nearest)) & 0xffu) << (8 * n);
    }
    quantized[number * kGroupWords + w] = word;
  }
  if (lane == 0) scales[number] = finite ? scale : NAN;
}

struct QuantizedProduct {
  int64_t ld_out, groups, words;
  int32_t m, n;
  // Output features begin at multiples of 16 bytes, and have whole chunks.
  bool aligned;

  QuantizedProduct(int64_t ld_out, int32_t bits, int32_t m, int32_t n, int32_t k)
      : ld_out(ld_out), groups(ceil_div(k, quant_group(bits))), words(ceil_div(k, quant_word(bits))), m(m), n(n),
        aligned(groups % kChunkWords == 0 && words % kChunkWords == 0) {}
};

struct alignas(16) Words {
  uint32_t word[kChunkWords];
};

// What a lane reads of an output feature at once, and its group's scale and zero point.
struct WeightChunk {
  Words numbers;
  uint32_t scale;
};

template <int Bits>
__device__ inline WeightChunk read_weight(Global<const uint32_t> w, const QuantizedProduct& a, int64_t at) {
  constexpr int64_t kGroupWords = quant_group(Bits) / quant_word(Bits);
  WeightChunk chunk{};
  if (at >= a.words) return chunk;
  chunk.scale = w[a.words + at / kGroupWords];
  if (a.aligned) {
    chunk.numbers = load_streaming(cast<const Words>(w), at / kChunkWords);
  } else {
    for (int j = 0; j < kChunkWords; j++) chunk.numbers.word[j] = at + j < a.words ? w[at + j] : 0u;
  }
  return chunk;
}

// One output feature of up to kRows rows, by a warp whose lanes share out k. A lane's sums over a few words are integers. The next chunk is on its way
// while one is multiplied.
template <class Out, int Bits>
__device__ void multiply_rows(Global<const uint32_t> x, Global<const float> scales, Global<const uint32_t> w, Global<const float> bias,
                              Global<Out> out, const QuantizedProduct& a, int64_t column, int first_row, int num_rows) {
  constexpr int kGroupWords = static_cast<int>(quant_group(Bits) / quant_word(Bits));
  constexpr int kPieces = 8 / Bits;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t x_stride = a.groups * kGroupWords * kPieces;
  float sums[kRows] = {};
  WeightChunk next = read_weight<Bits>(w, a, lane * kChunkWords);
  for (int64_t at = lane * kChunkWords; at < a.words; at += 32 * kChunkWords) {
    const WeightChunk chunk = next;
    next = read_weight<Bits>(w, a, at + 32 * kChunkWords);
    const int64_t group = at / kGroupWords;
    const float scale = __uint_as_float(chunk.scale & 0xffff0000u);
    const int zero = static_cast<int>(chunk.scale & 0xffffu);
    uint32_t numbers[kChunkWords * kPieces];
    for (int j = 0; j < kChunkWords; j++) {
      const uint32_t word = chunk.numbers.word[j];
      for (int piece = 0; piece < kPieces; piece++) {
        numbers[j * kPieces + piece] = Bits == 8 ? word : word >> (4 * piece) & 0x0f0f0f0fu;
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      if (r >= num_rows) continue;
      // Rows of x are whole groups, padded with zeros.
      const auto row = cast<const Words>(x + ((first_row + r) * x_stride + at * kPieces));
      int product = 0, sum = 0;
      for (int piece = 0; piece < kPieces; piece++) {
        const Words values = row[piece];
        for (int j = 0; j < kChunkWords; j++) {
          const auto value = static_cast<int>(values.word[j]);
          product = __dp4a(static_cast<int>(numbers[piece * kChunkWords + j]), value, product);
          if (Bits == 4) sum = __dp4a(0x01010101, value, sum);
        }
      }
      sums[r] += static_cast<float>(product - zero * sum) * (scale * scales[(first_row + r) * a.groups + group]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (r >= num_rows) continue;
    const float sum = warp_reduce(sums[r], Sum());
    if (lane == 0) out[(first_row + r) * a.ld_out + column] = from_float<Out>(sum + (bias ? bias[column] : 0.0f));
  }
}

// A warp for an output feature and up to kRows rows.
template <class Out, int Bits>
__global__ void __launch_bounds__(kThreads)
    quantized_linear_kernel(Global<const uint32_t> x, Global<const float> scales, Global<const uint32_t> weight,
                            Global<const float> bias, Global<Out> out, QuantizedProduct a) {
  await_previous_kernel();
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= a.n) return;
  const int step = static_cast<int>(gridDim.y) * kRows;
  for (int first_row = static_cast<int>(blockIdx.y) * kRows; first_row < a.m; first_row += step) {
    const int num_rows = a.m - first_row < kRows ? a.m - first_row : kRows;
    multiply_rows<Out, Bits>(x, scales, weight + column * (a.words + a.groups), bias, out, a, column, first_row, num_rows);
  }
}

// The same for rows sorted by expert: a block has up to kRows rows of one expert.
template <class Out, int Bits>
__global__ void __launch_bounds__(kThreads)
    quantized_grouped_linear_kernel(Global<const uint32_t> x, Global<const float> scales, Global<const int64_t> weights,
                                    Global<const float> biases, Global<const int32_t> expert_offsets, Global<Out> out, int num_experts,
                                    QuantizedProduct a) {
  await_previous_kernel();
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  RowTile tile;
  for (int number = static_cast<int>(blockIdx.y); find_tile(expert_offsets, num_experts, number, kRows, tile);
       number += static_cast<int>(gridDim.y)) {
    if (column >= a.n) continue;
    const Global<const uint32_t> w = weight_of<uint32_t>(weights, tile.expert) + column * (a.words + a.groups);
    const Global<const float> bias = biases ? biases + static_cast<int64_t>(tile.expert) * a.n : biases;
    multiply_rows<Out, Bits>(x, scales, w, bias, out, a, column, tile.begin, tile.end - tile.begin);
  }
}

template <class F>
int32_t with_bits(int32_t bits, F f) {
  return bits == 8 ? f(std::integral_constant<int, 8>()) : f(std::integral_constant<int, 4>());
}

int64_t scales_offset(int64_t m, int64_t k, int32_t bits) { return round_up(m * round_up(k, quant_group(bits)), 256); }

// More tiles of rows than a grid has are looped over.
unsigned row_blocks(int64_t tiles) {
  constexpr int64_t kMaxBlocks = 65535;
  return static_cast<unsigned>(tiles < kMaxBlocks ? tiles : kMaxBlocks);
}

// Rows of x, quantized in the workspace.
struct QuantizedRows {
  uint32_t* numbers;
  float* scales;
};

// x [m, k] quantized into the workspace, then `multiply(type of activations, bits, rows)`.
template <class F>
int32_t enqueue_with_quantized_rows(const Stream* stream, const void* x, int64_t ld_x, int32_t bits, int32_t m, int32_t k, F multiply) {
  const int64_t groups = ceil_div(k, quant_group(bits));
  const QuantizedRows rows{static_cast<uint32_t*>(stream->workspace),
                           reinterpret_cast<float*>(static_cast<char*>(stream->workspace) + scales_offset(m, k, bits))};
  return with_activation(stream, [&](auto* type) {
    return with_bits(bits, [&](auto number) {
      using T = Pointee<decltype(type)>;
      constexpr int kBits = decltype(number)::value;
      const auto blocks = static_cast<unsigned>(ceil_div(m * groups, kWarps));
      const int32_t code = launched(launch("quantize_activations", quantize_activations_kernel<T, kBits>, blocks, kThreads, 0,
                                           stream->stream, static_cast<const T*>(x), ld_x, rows.numbers, rows.scales, groups, m * groups,
                                           static_cast<int64_t>(k)));
      return code != kOk ? code : multiply(type, number, rows);
    });
  });
}

// out is of the type that `Out` gives for the activation type.
template <template <class> class Out>
int32_t enqueue_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t bits, const float* bias,
                                 void* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  return enqueue_with_quantized_rows(stream, x, ld_x, bits, m, k, [&](auto* type, auto number, const QuantizedRows& rows) {
    using To = typename Out<Pointee<decltype(type)>>::type;
    constexpr int kBits = decltype(number)::value;
    QuantizedProduct product(ld_out, kBits, m, n, k);
    product.aligned = product.aligned && reinterpret_cast<uintptr_t>(w) % sizeof(Words) == 0;
    const dim3 grid(static_cast<unsigned>(ceil_div(n, kWarps)), row_blocks(ceil_div(m, kRows)));
    return launched(launch("quantized_linear", quantized_linear_kernel<To, kBits>, grid, kThreads, 0, stream->stream,
                           static_cast<const uint32_t*>(rows.numbers), static_cast<const float*>(rows.scales), w, bias,
                           static_cast<To*>(out), product));
  });
}

template <class T>
struct Activation {
  using type = T;
};
template <class>
struct Float32 {
  using type = float;
};

}  // namespace
}  // namespace bao

using namespace bao;

// Bytes of workspace that a product with m rows needs of the stream.
BAO_EXPORT int64_t bao_quantized_linear_workspace_bytes(int32_t m, int32_t k, int32_t scheme) {
  if (!is_quantization(scheme) || scheme == kQuantFp8) return 0;
  const int32_t bits = integer_bits(scheme);
  return scales_offset(m, k, bits) + m * ceil_div(k, quant_group(bits)) * 4;
}

// Bytes of a quantized weight, or -1 for a shape or scheme that there is none of.
BAO_EXPORT int64_t bao_quantized_linear_bytes(int32_t n, int32_t k, int32_t scheme) {
  if (n <= 0 || k <= 0 || !is_quantization(scheme)) return -1;
  return n * (scheme == kQuantFp8 ? fp8_row_bytes(k) : quant_column_words(k, integer_bits(scheme)) * 4);
}

// Enqueues the quantization of source [rows, cols] (rows ld apart, on the device) as output features n_offset to n_offset + rows.
BAO_EXPORT int32_t bao_quantize_linear(const Stream* stream, const void* source, int32_t source_dtype, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination, int32_t scheme) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (!is_float_dtype(source_dtype) || !is_quantization(scheme)) return kBadDType;
  if (rows == 0) return kOk;
  if (!source || !destination) return kNullPointer;
  if (scheme == kQuantFp8) {
    char* to = static_cast<char*>(destination) + n_offset * fp8_row_bytes(cols);
    return enqueue_fp8_weight(stream, source, source_dtype, nullptr, rows, cols, ld, to);
  }
  const int32_t bits = integer_bits(scheme);
  const int64_t groups = ceil_div(cols, quant_group(bits));
  uint32_t* to = static_cast<uint32_t*>(destination) + n_offset * quant_column_words(cols, bits);
  return with_dtype(source_dtype, [&](auto* type) {
    return with_bits(bits, [&](auto number) {
      using From = Pointee<decltype(type)>;
      constexpr int kBits = decltype(number)::value;
      return launched(launch("quantize_weight", quantize_weight_kernel<From, kBits>, element_blocks(rows * groups), kElementThreads, 0,
                             stream->stream, static_cast<const From*>(source), ld, to, groups, static_cast<int64_t>(rows),
                             static_cast<int64_t>(cols)));
    });
  });
}

// The same for 8-bit floats with scales [rows, groups of kFp8Group columns], which stay what they are.
BAO_EXPORT int32_t bao_pack_fp8_linear(const Stream* stream, const void* source, const float* scales, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (rows == 0) return kOk;
  if (!source || !scales || !destination) return kNullPointer;
  char* to = static_cast<char*>(destination) + n_offset * fp8_row_bytes(cols);
  return enqueue_fp8_weight(stream, source, kFp8E4M3, scales, rows, cols, ld, to);
}

namespace {

int32_t check_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme, void* out,
                               int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (m < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (!is_quantization(scheme)) return kBadDType;
  if (m > 0 && (!x || !w || !out)) return kNullPointer;
  return m > 0 && stream->workspace_bytes < bao_quantized_linear_workspace_bytes(m, k, scheme) ? kOutOfMemory : kOk;
}

}  // namespace

BAO_EXPORT int32_t bao_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                        const float* bias, void* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  const int32_t code = check_quantized_linear(stream, x, ld_x, w, scheme, out, ld_out, m, n, k);
  if (code != kOk || m == 0) return code;
  if (scheme == kQuantFp8) return enqueue_fp8_linear(stream, x, ld_x, w, bias, out, ld_out, false, m, n, k);
  return enqueue_quantized_linear<Activation>(stream, x, ld_x, w, integer_bits(scheme), bias, out, ld_out, m, n, k);
}

BAO_EXPORT int32_t bao_quantized_linear_f32(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                            const float* bias, void* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  const int32_t code = check_quantized_linear(stream, x, ld_x, w, scheme, out, ld_out, m, n, k);
  if (code != kOk || m == 0) return code;
  if (scheme == kQuantFp8) return enqueue_fp8_linear(stream, x, ld_x, w, bias, out, ld_out, true, m, n, k);
  return enqueue_quantized_linear<Float32>(stream, x, ld_x, w, integer_bits(scheme), bias, out, ld_out, m, n, k);
}

BAO_EXPORT int32_t bao_quantized_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, int32_t scheme,
                                                const float* biases, const int32_t* expert_offsets, int32_t num_experts, void* out,
                                                int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || num_experts <= 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (!is_quantization(scheme)) return kBadDType;
  if (rows == 0) return kOk;
  if (!x || !weights || !expert_offsets || !out) return kNullPointer;
  if (stream->workspace_bytes < bao_quantized_linear_workspace_bytes(rows, k, scheme)) return kOutOfMemory;
  if (scheme == kQuantFp8) {
    return enqueue_fp8_grouped_linear(stream, x, ld_x, weights, biases, expert_offsets, num_experts, out, ld_out, rows, n, k);
  }
  return enqueue_with_quantized_rows(stream, x, ld_x, integer_bits(scheme), rows, k, [&](auto* type, auto number, const QuantizedRows& quantized) {
    using T = Pointee<decltype(type)>;
    constexpr int kBits = decltype(number)::value;
    const QuantizedProduct product(ld_out, kBits, rows, n, k);
    const dim3 grid(static_cast<unsigned>(ceil_div(n, kWarps)), row_blocks(max_tiles(rows, num_experts, kRows)));
    return launched(launch("quantized_grouped_linear", quantized_grouped_linear_kernel<T, kBits>, grid, kThreads, 0, stream->stream,
                           static_cast<const uint32_t*>(quantized.numbers), static_cast<const float*>(quantized.scales), weights, biases,
                           expert_offsets, static_cast<T*>(out), num_experts, product));
  });
}
