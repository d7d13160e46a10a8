// Rows of activations as int8, quantized as the CPU quantizes them (cpu/kernels/quant/quant_activations.h).
#include "quant_group.cuh"
#include "quantized.h"
#include "reduce.cuh"

namespace bao {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// Where a group's word w of four k lies: see QuantizedRows.
template <int Bits>
__device__ inline int place_of(int w) {
  return Bits == 8 ? w : w / 8 * 8 + w % 2 * 4 + w % 8 / 2;
}

// A warp for each group of each row.
template <class T, int Bits>
__global__ void __launch_bounds__(kThreads)
    quantize_rows_kernel(Global<const T> x, int64_t ld_x, Global<uint32_t> numbers, Global<float> scales, int64_t groups, int64_t count,
                         int64_t k) {
  await_previous_kernel();
  constexpr int kGroup = static_cast<int>(quant_group(Bits)), kGroupWords = kGroup / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (number >= count) return;
  const int64_t row = number / groups, first = number % groups * kGroup;
  const auto value = [&](int64_t j) { return j < k ? to_float(x[row * ld_x + j]) : 0.0f; };
  float greatest = 0;
  bool has_bad = false;
  for (int j = lane; j < kGroup; j += 32) {
    const float magnitude = fabsf(value(first + j));
    has_bad = has_bad || !(magnitude < INFINITY);
    greatest = fmaxf(greatest, magnitude);
  }
  const bool finite = !__any_sync(kFullWarp, has_bad);
  float scale = warp_reduce(greatest, Max()) / 127.0f;
  if (scale < kSmallestScale) scale = 0;
  const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
  for (int w = lane; w < kGroupWords; w += 32) {
    uint32_t word = 0;
    for (int n = 0; n < 4; n++) {
      const float nearest = finite ? rounded(__fmul_rn(value(first + 4 * w + n), inverse)) : 0.0f;
      word |= (static_cast<uint32_t>(static_cast<int32_t>(nearest)) & 0xffu) << (8 * n);
    }
    numbers[number * kGroupWords + place_of<Bits>(w)] = word;
  }
  if (lane == 0) scales[number] = finite ? scale : NAN;
}

int64_t scales_offset(int64_t m, int64_t k, int32_t bits) { return round_up(m * round_up(k, quant_group(bits)), 256); }

}  // namespace

int64_t quantized_rows_bytes(int64_t m, int64_t k, int32_t bits) {
  return scales_offset(m, k, bits) + m * ceil_div(k, quant_group(bits)) * 4;
}

int32_t enqueue_quantize_rows(const Stream* stream, const void* x, int64_t ld_x, int32_t m, int32_t k, int32_t bits, QuantizedRows& rows) {
  uint32_t* numbers = static_cast<uint32_t*>(stream->workspace);
  float* scales = reinterpret_cast<float*>(static_cast<char*>(stream->workspace) + scales_offset(m, k, bits));
  rows = {numbers, scales};
  const int64_t groups = ceil_div(k, quant_group(bits));
  return with_activation(stream, [&](auto* type) {
    return with_bits(bits, [&](auto number) {
      using T = Pointee<decltype(type)>;
      return launched(launch("quantize_rows", quantize_rows_kernel<T, decltype(number)::value>,
                             static_cast<unsigned>(ceil_div(m * groups, kWarps)), kThreads, 0, stream->stream, static_cast<const T*>(x), ld_x,
                             numbers, scales, groups, m * groups, static_cast<int64_t>(k)));
    });
  });
}

}  // namespace bao
