// The op `grouped_linear`: each row times the weight of its expert, on tensor cores. Rows are sorted by expert; a block has kRows rows of one
// expert and kColumns output features. An output is summed over k in one order, so that its bits depend on its own row only.
#include "expert_tiles.cuh"
#include "ptx.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kRows = 64;
constexpr int kColumns = 64;
constexpr int kDepth = 32;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// Rows of shared tiles lie 16 bytes off a multiple of the banks, so that 8 rows are read without a conflict.
constexpr int kLd = kDepth + 8;
constexpr int kTile = (kRows + kColumns) * kLd;
constexpr int kFloatThreads = 128;

struct GroupedLinearArgs {
  int64_t ld_x, ld_out;
  int32_t num_experts, n, k;
  // Rows and weights may be read 8 elements at a time.
  bool aligned;
};

template <class T>
class GroupedBlock {
 public:
  __device__ GroupedBlock(const GroupedLinearArgs& a, Global<const T> x, Global<const T> w, RowTile tile)
      : a_(a), x_(x), w_(w), tile_(tile), column_(static_cast<int>(blockIdx.x) * kColumns),
        lane_(static_cast<int>(threadIdx.x) % 32), warp_(static_cast<int>(threadIdx.x) / 32), shared_(shared_memory<T>()) {}

  __device__ void multiply() {
    const int steps = (a_.k + kDepth - 1) / kDepth;
    load(0);
    cp_async_commit();
    for (int step = 0; step < steps; step++) {
      if (step + 1 < steps) load(step + 1);
      cp_async_commit();
      cp_async_wait<1>();
      __syncthreads();
      accumulate(step);
      __syncthreads();
    }
    cp_async_wait<0>();
  }

  __device__ void store(Global<const float> biases, Global<T> out) {
#pragma unroll
    for (int m = 0; m < kRows / 16; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = tile_.begin + 16 * m + lane_ / 4 + 8 * (i / 2);
#pragma unroll
        for (int c = 0; c < 2; c++) {
          const int column = column_ + 16 * warp_ + 8 * c + 2 * (lane_ % 4) + i % 2;
          if (row >= tile_.end || column >= a_.n) continue;
          const float bias = biases ? biases[static_cast<int64_t>(tile_.expert) * a_.n + column] : 0.0f;
          out[row * a_.ld_out + column] = from_float<T>(sums_[m][c][i] + bias);
        }
      }
    }
  }

 private:
  __device__ T* rows(int step) { return shared_ + step % 2 * kTile; }
  __device__ T* columns(int step) { return rows(step) + kRows * kLd; }

  // The step's part of x and of the weight, 8 elements at a time; zeros past the last row, column and k.
  __device__ void load(int step) {
    for (int i = static_cast<int>(threadIdx.x); i < (kRows + kColumns) * kDepth / 8; i += kThreads) {
      const int row = i / (kDepth / 8), k = step * kDepth + i % (kDepth / 8) * 8;
      const bool is_x = row < kRows;
      const int at = is_x ? tile_.begin + row : column_ + row - kRows;
      const bool there = at < (is_x ? tile_.end : a_.n) && k < a_.k;
      const int64_t offset = there ? at * (is_x ? a_.ld_x : static_cast<int64_t>(a_.k)) + k : 0;
      const Global<const T> from = (is_x ? x_ : w_) + offset;
      T* to = rows(step) + row * kLd + i % (kDepth / 8) * 8;
      if (a_.aligned) {
        cp_async_16(to, address_of(from, there ? 16 : 0, 16), there);
      } else {
        for (int j = 0; j < 8; j++) to[j] = there && k + j < a_.k ? from[j] : from_float<T>(0.0f);
      }
    }
  }

  // A warp has all rows and 16 of the columns.
  __device__ void accumulate(int step) {
    for (int k = 0; k < kDepth; k += 16) {
      // Four 8x8 matrices: columns 0..7 and 8..15, each at k and k + 8.
      uint32_t b[4];
      ldmatrix_x4(b, columns(step) + (16 * warp_ + lane_ / 16 * 8 + lane_ % 8) * kLd + k + lane_ / 8 % 2 * 8);
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < kRows / 16; m++) {
        if (tile_.begin + 16 * m >= tile_.end) continue;
        uint32_t a[4];
        ldmatrix_x4(a, rows(step) + (16 * m + lane_ % 16) * kLd + k + lane_ / 16 * 8);
        mma_m16n8k16<T>(sums_[m][0], a, left);
        mma_m16n8k16<T>(sums_[m][1], a, right);
      }
    }
  }

  const GroupedLinearArgs& a_;
  Global<const T> x_, w_;
  RowTile tile_;
  int column_, lane_, warp_;
  T* shared_;
  float sums_[kRows / 16][2][4] = {};
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    grouped_linear_kernel(Global<const T> x, Global<const int64_t> weights, Global<const float> biases,
                          Global<const int32_t> expert_offsets, Global<T> out, GroupedLinearArgs a) {
  await_previous_kernel();
  RowTile tile;
  if (!find_tile(expert_offsets, a.num_experts, static_cast<int>(blockIdx.y), kRows, tile)) return;
  GroupedBlock<T> block(a, x, weight_of<T>(weights, tile.expert), tile);
  block.multiply();
  block.store(biases, out);
}

// Without tensor cores, for comparisons: a block for a row, a thread for an output.
__global__ void __launch_bounds__(kFloatThreads)
    grouped_linear_float_kernel(Global<const float> x, Global<const int64_t> weights, Global<const float> biases,
                                Global<const int32_t> expert_offsets, Global<float> out, GroupedLinearArgs a) {
  await_previous_kernel();
  RowTile tile;
  // Rows may be more than a grid's second dimension has.
  if (!find_tile(expert_offsets, a.num_experts, static_cast<int>(blockIdx.x), 1, tile)) return;
  const int column = static_cast<int>(blockIdx.y) * kFloatThreads + static_cast<int>(threadIdx.x);
  if (column >= a.n) return;
  const Global<const float> row = x + tile.begin * a.ld_x;
  const Global<const float> w = weight_of<float>(weights, tile.expert) + static_cast<int64_t>(column) * a.k;
  float sum = 0;
  for (int i = 0; i < a.k; i++) sum += row[i] * w[i];
  if (biases) sum += biases[static_cast<int64_t>(tile.expert) * a.n + column];
  out[tile.begin * a.ld_out + column] = sum;
}

template <class T>
int32_t launch_grouped_linear(const Stream* stream, const void* x, const int64_t* weights, const float* biases,
                              const int32_t* expert_offsets, void* out, int32_t rows, GroupedLinearArgs args) {
  // Weights begin at multiples of 256 bytes, as all that is allocated.
  args.aligned = args.k % 8 == 0 && args.ld_x % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, kColumns)), max_tiles(rows, args.num_experts, kRows));
  return launched(launch("grouped_linear", grouped_linear_kernel<T>, grid, kThreads, 2 * kTile * sizeof(T), stream->stream,
                         static_cast<const T*>(x), weights, biases, expert_offsets, static_cast<T*>(out), args));
}

int32_t launch_grouped_linear_float(const Stream* stream, const void* x, const int64_t* weights, const float* biases,
                                    const int32_t* expert_offsets, void* out, int32_t rows, const GroupedLinearArgs& args) {
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(ceil_div(args.n, kFloatThreads)));
  return launched(launch("grouped_linear", grouped_linear_float_kernel, grid, kFloatThreads, 0, stream->stream,
                         static_cast<const float*>(x), weights, biases, expert_offsets, static_cast<float*>(out), args));
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, int32_t w_dtype,
                                      const float* biases, const int32_t* expert_offsets, int32_t num_experts, void* out,
                                      int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || n <= 0 || k <= 0 || num_experts <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (w_dtype != stream->activation) return kBadDType;
  if (rows == 0) return kOk;
  if (!x || !weights || !expert_offsets || !out) return kNullPointer;
  const GroupedLinearArgs args{ld_x, ld_out, num_experts, n, k, false};
  switch (stream->activation) {
    case kBFloat16:
      return launch_grouped_linear<BFloat16>(stream, x, weights, biases, expert_offsets, out, rows, args);
    case kFloat16:
      return launch_grouped_linear<Half>(stream, x, weights, biases, expert_offsets, out, rows, args);
    default:
      return launch_grouped_linear_float(stream, x, weights, biases, expert_offsets, out, rows, args);
  }
}
