// The op `grouped_linear`: each row times the weight of its expert, on tensor cores. Rows are sorted by expert; a block has the rows of a tile,
// which are one expert's, and 64 output features. An output is summed over k in one order, so that its bits depend on its own row only.
#include "product_tile.cuh"
#include "stream.h"

namespace bao {
namespace {

using Shape = TileShape<1, 4, 4, 2, 2>;
constexpr int kDepth = 32;
// Rows of shared tiles lie 16 bytes off a multiple of the banks, so that 8 rows are read without a conflict.
constexpr int kLd = kDepth + 8;
constexpr int kStage = (Shape::kRows + Shape::kColumns) * kLd;
constexpr int kFloatThreads = 128;

struct GroupedLinearArgs {
  int64_t ld_x, ld_out;
  int32_t num_experts, n, k;
  // Rows of x and weights may be read 16 bytes at a time.
  bool whole;
};

template <class T>
class GroupedBlock {
 public:
  __device__ GroupedBlock(const GroupedLinearArgs& a, Global<const T> x, Global<const T> w, RowTile rows)
      : k_(a.k), tile_(rows, a.n), x_rows_{x, a.ld_x, rows.begin, rows.end, a.k, a.whole},
        w_rows_{w, a.k, tile_.column(), a.n, a.k, a.whole}, shared_(shared_memory<T>()) {}

  __device__ void multiply() {
    multiply_parts<Shape::kStages>((k_ + kDepth - 1) / kDepth, [&](int part) { load(part); }, [&](int part) { accumulate(part); });
  }

  __device__ void store(Global<const float> biases, Global<T> out, int64_t ld_out) { tile_.store(biases, out, ld_out); }

 private:
  __device__ T* rows(int part) { return shared_ + part % Shape::kStages * kStage; }
  __device__ T* columns(int part) { return rows(part) + Shape::kRows * kLd; }

  __device__ void load(int part) {
    copy_columns<Shape::kThreads, Shape::kRows, kDepth, kLd>(rows(part), x_rows_, part * kDepth);
    copy_columns<Shape::kThreads, Shape::kColumns, kDepth, kLd>(columns(part), w_rows_, part * kDepth);
  }

  __device__ void accumulate(int part) {
    const int lane = tile_.lane();
    for (int k = 0; k < kDepth; k += 16) {
      // Four 8x8 matrices: columns 0..7 and 8..15, each at k and k + 8.
      uint32_t b[4];
      ldmatrix_x4(b, columns(part) + (tile_.column_of(0) + lane / 16 * 8 + lane % 8) * kLd + k + lane / 8 % 2 * 8);
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < Shape::kRowTiles; m++) {
        if (!tile_.has_row(tile_.row_of(m))) continue;
        uint32_t a[4];
        ldmatrix_x4(a, rows(part) + (tile_.row_of(m) + lane % 16) * kLd + k + lane / 16 * 8);
        mma_m16n8k16<T>(tile_.sums[m][0], a, left);
        mma_m16n8k16<T>(tile_.sums[m][1], a, right);
      }
    }
  }

  int k_;
  ProductTile<Shape> tile_;
  MatrixRows<T> x_rows_, w_rows_;
  T* shared_;
};

template <class T>
__global__ void __launch_bounds__(Shape::kThreads)
    grouped_linear_kernel(Global<const T> x, Global<const int64_t> weights, Global<const float> biases,
                          Global<const int32_t> expert_offsets, Global<T> out, GroupedLinearArgs a) {
  await_previous_kernel();
  RowTile rows;
  if (!find_tile(expert_offsets, a.num_experts, static_cast<int>(blockIdx.y), Shape::kRows, rows)) return;
  GroupedBlock<T> block(a, x, weight_of<T>(weights, rows.expert), rows);
  block.multiply();
  block.store(biases, out, a.ld_out);
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
  args.whole = has_whole_rows<T>(x, args.ld_x, args.k);
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, Shape::kColumns)), max_tiles(rows, args.num_experts, Shape::kRows));
  return launched(launch("grouped_linear", grouped_linear_kernel<T>, grid, Shape::kThreads, Shape::kStages * kStage * sizeof(T),
                         stream->stream, static_cast<const T*>(x), weights, biases, expert_offsets, static_cast<T*>(out), args));
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
