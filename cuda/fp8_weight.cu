// Weights of 8-bit floats, made on the device as the CPU makes them (cpu/kernels/linear/fp8_linear.cpp).
#include "fp8_linear.h"
#include "grid_stride.cuh"

namespace bao {
namespace {

struct Fp8WeightShape {
  int64_t ld, rows, k, groups;
};

template <class From>
__device__ float group_scale(const Global<const From>& values, int count) {
  float greatest = 0;
  for (int i = 0; i < count; i++) {
    const float value = fabsf(to_float(values[i]));
    if (!(value < INFINITY)) return NAN;
    greatest = fmaxf(greatest, value);
  }
  const float scale = greatest / kFp8Greatest;
  return scale < kFp8SmallestScale ? 0.0f : scale;
}

// A thread for each group of each row.
template <class From>
__global__ void fp8_weight_kernel(Global<const From> source, Global<const float> scales, Global<unsigned char> destination,
                                  Fp8WeightShape a) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < a.rows * a.groups; i += element_step()) {
    const int64_t row = i / a.groups, group = i % a.groups, first = group * kFp8Group;
    const int count = static_cast<int>(a.k - first < kFp8Group ? a.k - first : kFp8Group);
    const Global<const From> values = source + (row * a.ld + first);
    const Global<unsigned char> to = destination + row * fp8_row_bytes(a.k);
    float scale;
    if constexpr (std::is_same_v<From, Float8E4M3>) {
      scale = scales[i];
      for (int j = 0; j < count; j++) {
        const unsigned char number = values[j].bits;
        to[first + j] = number;
        if ((number & 0x7f) == 0x7f) scale = NAN;
      }
    } else {
      scale = group_scale<From>(values, count);
      const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
      for (int j = 0; j < count; j++) {
        to[first + j] = scale == scale ? from_float<Float8E4M3>(to_float(values[j]) * inverse).bits : static_cast<unsigned char>(0);
      }
    }
    cast<float>(to + fp8_numbers_bytes(a.k))[group] = scale;
  }
}

}  // namespace

int32_t enqueue_fp8_weight(const Stream* stream, const void* source, int32_t source_dtype, const float* scales, int32_t rows,
                           int32_t cols, int64_t ld, void* destination) {
  const Fp8WeightShape shape{ld, rows, cols, ceil_div(cols, kFp8Group)};
  return with_cache_dtype(source_dtype, [&](auto* type) {
    using From = Pointee<decltype(type)>;
    return launched(launch("fp8_weight", fp8_weight_kernel<From>, element_blocks(rows * shape.groups), kElementThreads, 0,
                           stream->stream, static_cast<const From*>(source), scales, static_cast<unsigned char*>(destination), shape));
  });
}

}  // namespace bao
