// Weights of 8 or 4 bits, made on the device as the CPU makes them (cpu/kernels/quant/quant_weight.cpp).
#include "grid_stride.cuh"
#include "quant_group.cuh"
#include "quantized.h"

namespace bao {
namespace {

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
};

__device__ inline float nearest_number(float x, float inverse, float zero, float least, float most) {
  return rounded(fminf(fmaxf(__fadd_rn(__fmul_rn(x, inverse), zero), least), most));
}

// A group's scale and zero point.
struct GroupScale {
  float scale, zero;
};

__device__ inline GroupScale symmetric_scale(const Range& range) {
  const float scale = round_up_to_bf16(fmaxf(-range.low, range.high) / 127.0f);
  return {scale < kSmallestScale ? 0.0f : scale, 128.0f};
}

// The sum of squared errors: the CPU's vectors have 16 sums.
template <class F>
__device__ float quantization_error(F value, float scale, float zero) {
  constexpr int kSums = 16;
  const float inverse = 1.0f / scale;
  float errors[kSums] = {}, sum = 0;
  for (int i = 0; i < quant_group(4); i += kSums) {
#pragma unroll
    for (int s = 0; s < kSums; s++) {
      const float x = value(i + s);
      const float error = __fadd_rn(__fmul_rn(nearest_number(x, inverse, zero, 0.0f, 15.0f) - zero, scale), -x);
      errors[s] = __fadd_rn(errors[s], __fmul_rn(error, error));
    }
  }
#pragma unroll
  for (int s = 0; s < kSums; s++) sum += errors[s];
  return sum;
}

// 16 steps from the least to the greatest, with a step for 0 itself; of some clipped ranges, the one with the least squared error.
template <class F>
__device__ GroupScale asymmetric_scale(const Range& range, F value) {
  GroupScale best{0, 0};
  float best_error = INFINITY;
  for (int step = 0; step < 4; step++) {
    const float part = __fadd_rn(1.0f, -__fmul_rn(0.08f, static_cast<float>(step)));
    const float scale = round_up_to_bf16(__fmul_rn(range.high - range.low, part) / 15.0f);
    if (scale < kSmallestScale) break;
    const float zero = rounded(__fmul_rn(-range.low, part) / scale);
    const float error = quantization_error(value, scale, zero);
    if (error < best_error) {
      best_error = error;
      best = {scale, zero};
    }
  }
  return best;
}

// A word of numbers of `value(0)`, `value(1)`, …
template <int Bits, class F>
__device__ uint32_t quantized_word(F value, const GroupScale& group) {
  const float inverse = group.scale > 0 ? 1.0f / group.scale : 0.0f;
  uint32_t word = 0;
  for (int n = 0; n < quant_word(Bits); n++) {
    const float number = nearest_number(value(n), inverse, group.zero, Bits == 8 ? 1.0f : 0.0f, Bits == 8 ? 255.0f : 15.0f);
    // 4-bit numbers have the first four k in the low halves of the bytes.
    const int shift = Bits == 8 ? 8 * n : 8 * (n % 4) + 4 * (n / 4);
    word |= static_cast<uint32_t>(number) << shift;
  }
  return Bits == 8 ? word ^ 0x80808080u : word;
}

// A thread for each group of each row.
template <class From, int Bits>
__global__ void quantize_weight_kernel(Global<const From> source, int64_t ld, Global<uint32_t> destination, int64_t groups, int64_t rows,
                                       int64_t k) {
  await_previous_kernel();
  constexpr int kGroup = static_cast<int>(quant_group(Bits)), kWord = static_cast<int>(quant_word(Bits));
  for (int64_t i = first_element(); i < rows * groups; i += element_step()) {
    const int64_t row = i / groups, group = i % groups, first = group * kGroup;
    const auto value = [&](int j) { return first + j < k ? to_float(source[row * ld + first + j]) : 0.0f; };
    Range range;
    for (int j = 0; j < kGroup; j++) range.add(value(j));
    GroupScale chosen{NAN, 0};
    if (range.finite) {
      if constexpr (Bits == 8) {
        chosen = symmetric_scale(range);
      } else {
        chosen = asymmetric_scale(range, value);
      }
    }
    const Global<uint32_t> to = destination + row * quantized_row_words(k, Bits);
    for (int j = 0; j < kGroup && first + j < k; j += kWord) {
      to[(first + j) / kWord] = range.finite ? quantized_word<Bits>([&](int n) { return value(j + n); }, chosen) : 0u;
    }
    to[quantized_number_words(k, Bits) + group] = (__float_as_uint(chosen.scale) & 0xffff0000u) | static_cast<uint32_t>(chosen.zero);
  }
}

}  // namespace

int32_t enqueue_quantize_weight(const Stream* stream, const void* source, int32_t source_dtype, int32_t rows, int32_t cols, int64_t ld,
                                uint32_t* destination, int32_t bits) {
  const int64_t groups = ceil_div(cols, quant_group(bits));
  return with_dtype(source_dtype, [&](auto* type) {
    return with_bits(bits, [&](auto number) {
      using From = Pointee<decltype(type)>;
      constexpr int kBits = decltype(number)::value;
      return launched(launch("quantize_weight", quantize_weight_kernel<From, kBits>, element_blocks(rows * groups), kElementThreads, 0,
                             stream->stream, static_cast<const From*>(source), ld, destination, groups, static_cast<int64_t>(rows),
                             static_cast<int64_t>(cols)));
    });
  });
}

}  // namespace bao
