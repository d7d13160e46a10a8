// Rows times weights of 8-bit floats on tensor cores: a block has kRows rows of one weight and kColumns output features. Numbers are
// copied as they are and widened to the activation type, exactly, when they become fragments; a group's sums are multiplied by its
// scale. An output's sums have one order whatever the number of rows, so that its bits depend on its own row only.
#include "fp8_linear.h"

#include "expert_tiles.cuh"
#include "ptx.cuh"

namespace bao {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kDepth = static_cast<int>(kFp8Group);
constexpr int kFloatThreads = 128;

// Few rows take few output features, so that many blocks read the weight, each with much of it under way.
template <int kTileRows>
struct Fp8Shape {
  static constexpr int kRows = kTileRows;
  static constexpr int kStages = kRows > 16 ? 2 : 4;
  // 8 output features each.
  static constexpr int kWarpTiles = kRows > 16 ? 2 : 1;
  static constexpr int kColumns = 8 * kWarpTiles * kWarps;
  // Rows of shared tiles lie 16 bytes off a multiple of the banks.
  static constexpr int kLdX = kDepth + 8;
  static constexpr int kLdW = kDepth + 16;
  static constexpr int kXBytes = kRows * kLdX * 2;
  static constexpr int kStageBytes = kXBytes + kColumns * kLdW;
  static_assert(kStages * kStageBytes <= kLeastSharedBytes, "devices of compute capability 8.6, 8.9 and 12.0 have no more");
};

struct Fp8LinearArgs {
  int64_t ld_x, ld_out;
  int32_t num_experts, m, n, k;
  // Rows of x may be read 8 elements at a time.
  bool aligned;
};

// Two numbers as two of the activation type.
template <class T>
__device__ inline uint32_t widen(const unsigned char* two) {
  const uint16_t bits = *reinterpret_cast<const uint16_t*>(two);
  return pack<T>(finite_to_float(Float8E4M3{static_cast<uint8_t>(bits & 0xff)}),
                 finite_to_float(Float8E4M3{static_cast<uint8_t>(bits >> 8)}));
}

template <class T, class S>
class Fp8Block {
 public:
  __device__ Fp8Block(const Fp8LinearArgs& a, Global<const T> x, Global<const unsigned char> w, RowTile tile)
      : a_(a), x_(x), w_(w), tile_(tile), column_(static_cast<int>(blockIdx.x) * S::kColumns),
        lane_(static_cast<int>(threadIdx.x) % 32), warp_(static_cast<int>(threadIdx.x) / 32), shared_(shared_memory<unsigned char>()) {}

  __device__ void multiply() {
    const int steps = (a_.k + kDepth - 1) / kDepth;
    for (int step = 0; step < S::kStages - 1; step++) {
      if (step < steps) load(step);
      cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
      if (step + S::kStages - 1 < steps) load(step + S::kStages - 1);
      cp_async_commit();
      cp_async_wait<S::kStages - 1>();
      __syncthreads();
      accumulate(step);
      __syncthreads();
    }
    cp_async_wait<0>();
  }

  template <class Out>
  __device__ void store(Global<const float> biases, Global<Out> out) {
#pragma unroll
    for (int m = 0; m < S::kRows / 16; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = tile_.begin + 16 * m + lane_ / 4 + 8 * (i / 2);
#pragma unroll
        for (int c = 0; c < S::kWarpTiles; c++) {
          const int column = column_of(c, i % 2);
          if (row >= tile_.end || column >= a_.n) continue;
          const float bias = biases ? biases[static_cast<int64_t>(tile_.expert) * a_.n + column] : 0.0f;
          out[row * a_.ld_out + column] = from_float<Out>(sums_[m][c][i] + bias);
        }
      }
    }
  }

 private:
  __device__ T* rows(int step) { return reinterpret_cast<T*>(shared_ + step % S::kStages * S::kStageBytes); }
  __device__ unsigned char* columns(int step) { return shared_ + step % S::kStages * S::kStageBytes + S::kXBytes; }
  // Of the two neighbours in accumulators of the warp's tile c.
  __device__ int column_of(int c, int i) const { return column_ + 8 * (S::kWarpTiles * warp_ + c) + 2 * (lane_ % 4) + i; }

  __device__ void load(int step) {
    load_rows(step);
    load_columns(step);
  }

  // The step's part of x, 8 elements at a time; zeros past the last row and k.
  __device__ void load_rows(int step) {
    for (int i = static_cast<int>(threadIdx.x); i < S::kRows * kDepth / 8; i += kThreads) {
      const int row = i / (kDepth / 8), k = step * kDepth + i % (kDepth / 8) * 8;
      const bool there = tile_.begin + row < tile_.end && k < a_.k;
      const Global<const T> from = x_ + (there ? (tile_.begin + row) * a_.ld_x + k : 0);
      T* to = rows(step) + row * S::kLdX + i % (kDepth / 8) * 8;
      if (a_.aligned) {
        cp_async_16(to, address_of(from, there ? 16 : 0, 16), there);
      } else {
        for (int j = 0; j < 8; j++) to[j] = there && k + j < a_.k ? from[j] : from_float<T>(0.0f);
      }
    }
  }

  // The same of the numbers, 16 at a time.
  __device__ void load_columns(int step) {
    for (int i = static_cast<int>(threadIdx.x); i < S::kColumns * kDepth / 16; i += kThreads) {
      const int column = i / (kDepth / 16), k = step * kDepth + i % (kDepth / 16) * 16;
      const bool there = column_ + column < a_.n && k < a_.k;
      const Global<const unsigned char> from = w_ + (there ? (column_ + column) * fp8_row_bytes(a_.k) + k : 0);
      cp_async_16(columns(step) + column * S::kLdW + i % (kDepth / 16) * 16, address_of(from, there ? 16 : 0, 16), there);
    }
  }

  // A group of k: a warp has all rows and kWarpTiles times 8 of the columns.
  __device__ void accumulate(int step) {
    float scales[S::kWarpTiles][2];
#pragma unroll
    for (int c = 0; c < S::kWarpTiles; c++) {
      for (int i = 0; i < 2; i++) {
        const int column = column_of(c, i);
        const Global<const unsigned char> row = w_ + (column < a_.n ? column * fp8_row_bytes(a_.k) : 0);
        scales[c][i] = column < a_.n ? cast<const float>(row + fp8_numbers_bytes(a_.k))[step] : 0.0f;
      }
    }
    float part[S::kRows / 16][S::kWarpTiles][4] = {};
    const int left = a_.k - step * kDepth, depth = left < kDepth ? left : kDepth;
    for (int k = 0; k < depth; k += 16) {
      uint32_t b[S::kWarpTiles][2];
#pragma unroll
      for (int c = 0; c < S::kWarpTiles; c++) {
        const int column = 8 * (S::kWarpTiles * warp_ + c) + lane_ / 4;
        const unsigned char* at = columns(step) + column * S::kLdW + k + 2 * (lane_ % 4);
        b[c][0] = widen<T>(at);
        b[c][1] = widen<T>(at + 8);
      }
#pragma unroll
      for (int m = 0; m < S::kRows / 16; m++) {
        if (tile_.begin + 16 * m >= tile_.end) continue;
        uint32_t a[4];
        ldmatrix_x4(a, rows(step) + (16 * m + lane_ % 16) * S::kLdX + k + lane_ / 16 * 8);
#pragma unroll
        for (int c = 0; c < S::kWarpTiles; c++) mma_m16n8k16<T>(part[m][c], a, b[c]);
      }
    }
#pragma unroll
    for (int m = 0; m < S::kRows / 16; m++) {
#pragma unroll
      for (int c = 0; c < S::kWarpTiles; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums_[m][c][i] = fmaf(part[m][c][i], scales[c][i % 2], sums_[m][c][i]);
      }
    }
  }

  const Fp8LinearArgs& a_;
  Global<const T> x_;
  Global<const unsigned char> w_;
  RowTile tile_;
  int column_, lane_, warp_;
  unsigned char* shared_;
  float sums_[S::kRows / 16][S::kWarpTiles][4] = {};
};

template <class T, class Out, int kRows>
__global__ void __launch_bounds__(kThreads)
    fp8_linear_kernel(Global<const T> x, Global<const unsigned char> w, Global<const float> bias, Global<Out> out, Fp8LinearArgs a) {
  await_previous_kernel();
  const int begin = static_cast<int>(blockIdx.y) * kRows;
  Fp8Block<T, Fp8Shape<kRows>> block(a, x, w, RowTile{0, begin, a.m - begin < kRows ? a.m : begin + kRows});
  block.multiply();
  block.store(bias, out);
}

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads)
    fp8_grouped_linear_kernel(Global<const T> x, Global<const int64_t> weights, Global<const float> biases,
                              Global<const int32_t> expert_offsets, Global<T> out, Fp8LinearArgs a) {
  await_previous_kernel();
  RowTile tile;
  if (!find_tile(expert_offsets, a.num_experts, static_cast<int>(blockIdx.y), kRows, tile)) return;
  Fp8Block<T, Fp8Shape<kRows>> block(a, x, weight_of<unsigned char>(weights, tile.expert), tile);
  block.multiply();
  block.store(biases, out);
}

// Without tensor cores, for comparisons: a thread for an output.
__device__ inline float float_product(Global<const float> x, Global<const unsigned char> row, int k) {
  float sum = 0;
  for (int first = 0; first < k; first += kDepth) {
    const int end = k - first < kDepth ? k : first + kDepth;
    float part = 0;
    for (int i = first; i < end; i++) part = fmaf(x[i], finite_to_float(Float8E4M3{row[i]}), part);
    sum = fmaf(part, cast<const float>(row + fp8_numbers_bytes(k))[first / kDepth], sum);
  }
  return sum;
}

__global__ void __launch_bounds__(kFloatThreads)
    fp8_linear_float_kernel(Global<const float> x, Global<const unsigned char> w, Global<const float> bias, Global<float> out,
                            Fp8LinearArgs a) {
  await_previous_kernel();
  const int row = static_cast<int>(blockIdx.x), column = static_cast<int>(blockIdx.y) * kFloatThreads + static_cast<int>(threadIdx.x);
  if (column >= a.n) return;
  const float sum = float_product(x + row * a.ld_x, w + column * fp8_row_bytes(a.k), a.k);
  out[row * a.ld_out + column] = bias ? sum + bias[column] : sum;
}

__global__ void __launch_bounds__(kFloatThreads)
    fp8_grouped_linear_float_kernel(Global<const float> x, Global<const int64_t> weights, Global<const float> biases,
                                    Global<const int32_t> expert_offsets, Global<float> out, Fp8LinearArgs a) {
  await_previous_kernel();
  RowTile tile;
  if (!find_tile(expert_offsets, a.num_experts, static_cast<int>(blockIdx.x), 1, tile)) return;
  const int column = static_cast<int>(blockIdx.y) * kFloatThreads + static_cast<int>(threadIdx.x);
  if (column >= a.n) return;
  const Global<const unsigned char> w = weight_of<unsigned char>(weights, tile.expert);
  const float sum = float_product(x + tile.begin * a.ld_x, w + column * fp8_row_bytes(a.k), a.k);
  const Global<const float> bias = biases ? biases + static_cast<int64_t>(tile.expert) * a.n : biases;
  out[tile.begin * a.ld_out + column] = bias ? sum + bias[column] : sum;
}

bool is_aligned(const void* x, int64_t ld_x, int32_t k) {
  return k % 8 == 0 && ld_x % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

dim3 float_grid(int32_t rows, int32_t n) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(n, kFloatThreads)));
}

template <class T, class Out, int kRows>
int32_t launch_fp8_linear(const Stream* stream, const void* x, const void* w, const float* bias, void* out, const Fp8LinearArgs& args) {
  using S = Fp8Shape<kRows>;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, S::kColumns)), static_cast<unsigned>(ceil_div(args.m, kRows)));
  return launched(launch("fp8_linear", fp8_linear_kernel<T, Out, kRows>, grid, kThreads, S::kStages * S::kStageBytes, stream->stream,
                         static_cast<const T*>(x), static_cast<const unsigned char*>(w), bias, static_cast<Out*>(out), args));
}

template <class T, int kRows>
int32_t launch_fp8_grouped_linear(const Stream* stream, const void* x, const int64_t* weights, const float* biases,
                                  const int32_t* expert_offsets, void* out, const Fp8LinearArgs& args) {
  using S = Fp8Shape<kRows>;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, S::kColumns)), max_tiles(args.m, args.num_experts, kRows));
  return launched(launch("fp8_grouped_linear", fp8_grouped_linear_kernel<T, kRows>, grid, kThreads, S::kStages * S::kStageBytes,
                         stream->stream, static_cast<const T*>(x), weights, biases, expert_offsets, static_cast<T*>(out), args));
}

}  // namespace

int32_t enqueue_fp8_linear(const Stream* stream, const void* x, int64_t ld_x, const void* w, const float* bias, void* out,
                           int64_t ld_out, bool float_out, int32_t m, int32_t n, int32_t k) {
  const Fp8LinearArgs args{ld_x, ld_out, 1, m, n, k, is_aligned(x, ld_x, k)};
  return with_activation(stream, [&](auto* type) -> int32_t {
    using T = Pointee<decltype(type)>;
    if constexpr (std::is_same_v<T, float>) {
      return launched(launch("fp8_linear", fp8_linear_float_kernel, float_grid(m, n), kFloatThreads, 0, stream->stream,
                             static_cast<const float*>(x), static_cast<const unsigned char*>(w), bias, static_cast<float*>(out), args));
    } else if (m <= 16) {
      return float_out ? launch_fp8_linear<T, float, 16>(stream, x, w, bias, out, args)
                       : launch_fp8_linear<T, T, 16>(stream, x, w, bias, out, args);
    } else {
      return float_out ? launch_fp8_linear<T, float, 64>(stream, x, w, bias, out, args)
                       : launch_fp8_linear<T, T, 64>(stream, x, w, bias, out, args);
    }
  });
}

int32_t enqueue_fp8_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, const float* biases,
                                   const int32_t* expert_offsets, int32_t num_experts, void* out, int64_t ld_out, int32_t rows,
                                   int32_t n, int32_t k) {
  const Fp8LinearArgs args{ld_x, ld_out, num_experts, rows, n, k, is_aligned(x, ld_x, k)};
  return with_activation(stream, [&](auto* type) -> int32_t {
    using T = Pointee<decltype(type)>;
    if constexpr (std::is_same_v<T, float>) {
      return launched(launch("fp8_grouped_linear", fp8_grouped_linear_float_kernel, float_grid(rows, n), kFloatThreads, 0,
                             stream->stream, static_cast<const float*>(x), weights, biases, expert_offsets, static_cast<float*>(out),
                             args));
    } else if (rows <= 16 * num_experts) {
      return launch_fp8_grouped_linear<T, 16>(stream, x, weights, biases, expert_offsets, out, args);
    } else {
      return launch_fp8_grouped_linear<T, 64>(stream, x, weights, biases, expert_offsets, out, args);
    }
  });
}

}  // namespace bao
