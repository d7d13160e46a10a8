// Products with few rows, as in decode: what they cost is reading the weight. cuBLAS has the others. A warp takes kColumns output features, its
// lanes eight consecutive k each at a time; a lane's sums and the lanes' have one order, so that a row's bits do not depend on the others.
#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kMaxRows = 4;
constexpr int kColumns = 2;
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
// Loads of a weight's row that a lane has under way together.
constexpr int kLoads = 4;
constexpr int kChunk = 8;

template <class T>
struct alignas(16) Chunk {
  T element[kChunk];
};

struct SmallLinearArgs {
  int64_t ld_x, ld_out;
  int32_t n, k;
};

template <class W>
class WeightRows {
 public:
  __device__ WeightRows(Global<const W> w, int first_column, const SmallLinearArgs& a)
      : chunks_(a.k / kChunk), lane_(static_cast<int>(threadIdx.x) % 32) {
    for (int c = 0; c < kColumns; c++) {
      // A column past the last one is computed as the last one, and not stored.
      const int column = first_column + c < a.n ? first_column + c : a.n - 1;
      rows_[c] = cast<const Chunk<W>>(w + static_cast<int64_t>(column) * a.k);
    }
  }

  __device__ int chunk_of(int step, int load) const { return (step * kLoads + load) * 32 + lane_; }
  __device__ int num_steps() const { return (chunks_ + 32 * kLoads - 1) / (32 * kLoads); }
  __device__ bool has(int chunk) const { return chunk < chunks_; }

  __device__ void load(int step, Chunk<W> (&loaded)[kLoads][kColumns]) const {
#pragma unroll
    for (int l = 0; l < kLoads; l++) {
#pragma unroll
      for (int c = 0; c < kColumns; c++) {
        if (has(chunk_of(step, l))) loaded[l][c] = load_streaming(rows_[c], chunk_of(step, l));
      }
    }
  }

 private:
  Global<const Chunk<W>> rows_[kColumns];
  int chunks_, lane_;
};

template <class T, class W, class Out, int kRows>
__global__ void __launch_bounds__(kThreads)
    small_linear_kernel(Global<const T> x, Global<const W> w, Global<const float> bias, Global<Out> out, SmallLinearArgs a) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_column = (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32) * kColumns;
  const WeightRows<W> weight(w, first_column < a.n ? first_column : a.n - 1, a);
  Chunk<W> loaded[kLoads][kColumns];
  // Nothing that is still running writes weights: they are on their way before it has ended.
  weight.load(0, loaded);
  await_previous_kernel();
  if (first_column >= a.n) return;
  float sums[kRows][kColumns] = {};
  for (int step = 0; step < weight.num_steps(); step++) {
    if (step > 0) weight.load(step, loaded);
#pragma unroll
    for (int l = 0; l < kLoads; l++) {
      const int chunk = weight.chunk_of(step, l);
      if (!weight.has(chunk)) continue;
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        const Chunk<T> values = cast<const Chunk<T>>(x + r * a.ld_x)[chunk];
#pragma unroll
        for (int c = 0; c < kColumns; c++) {
#pragma unroll
          for (int i = 0; i < kChunk; i++) sums[r][c] += to_float(values.element[i]) * to_float(loaded[l][c].element[i]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int c = 0; c < kColumns; c++) {
      const float sum = warp_reduce(sums[r][c], Sum());
      const int column = first_column + c;
      if (lane == 0 && column < a.n) out[r * a.ld_out + column] = from_float<Out>(bias ? sum + bias[column] : sum);
    }
  }
}

template <class T, class W, class Out>
int32_t launch_small_linear(const Stream* stream, const void* x, const void* w, const float* bias, void* out, int32_t m,
                            const SmallLinearArgs& a) {
  using Kernel = void (*)(Global<const T>, Global<const W>, Global<const float>, Global<Out>, SmallLinearArgs);
  constexpr Kernel kernels[kMaxRows] = {small_linear_kernel<T, W, Out, 1>, small_linear_kernel<T, W, Out, 2>,
                                        small_linear_kernel<T, W, Out, 3>, small_linear_kernel<T, W, Out, 4>};
  const auto blocks = static_cast<unsigned>(ceil_div(a.n, kWarps * kColumns));
  return launched(launch("small_linear", kernels[m - 1], blocks, kThreads, 0, stream->stream, static_cast<const T*>(x),
                         static_cast<const W*>(w), bias, static_cast<Out*>(out), a));
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace
}  // namespace bao

using namespace bao;

// Whether bao_small_linear takes such a product. x is of the activation type.
BAO_EXPORT int32_t bao_is_small_linear(const void* x, int64_t ld_x, const void* w, int32_t m, int32_t k) {
  return m > 0 && m <= kMaxRows && k > 0 && k % kChunk == 0 && ld_x % kChunk == 0 && is_aligned(x) && is_aligned(w) ? 1 : 0;
}

// As the ops linear and linear_f32, for what bao_is_small_linear says yes to: w is [n, k], of the activation type, or float32 where out is.
BAO_EXPORT int32_t bao_small_linear(const Stream* stream, const void* x, int64_t ld_x, const void* w, int32_t w_dtype,
                                    const float* bias, void* out, int64_t ld_out, int32_t out_dtype, int32_t m, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (!bao_is_small_linear(x, ld_x, w, m, k) || n <= 0 || ld_x < k || ld_out < n) return kBadShape;
  const SmallLinearArgs args{ld_x, ld_out, n, k};
  return with_activation(stream, [&](auto* type) -> int32_t {
    using T = Pointee<decltype(type)>;
    if (w_dtype == stream->activation && out_dtype == stream->activation) {
      return launch_small_linear<T, T, T>(stream, x, w, bias, out, m, args);
    }
    if (out_dtype != kFloat32) return kBadDType;
    if (w_dtype == stream->activation) return launch_small_linear<T, T, float>(stream, x, w, bias, out, m, args);
    if (w_dtype == kFloat32) return launch_small_linear<T, float, float>(stream, x, w, bias, out, m, args);
    return kBadDType;
  });
}
