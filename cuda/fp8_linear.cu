// Rows times weights of 8-bit floats on tensor cores: a block has kRows rows of one weight and kColumns output features. Numbers are
// copied as they are and widened to the activation type, exactly, when they become fragments; a group's sums are multiplied by its
// scale. An output's sums have one order whatever the number of rows, so that its bits depend on its own row only.
#include "fp8_linear.h"

#include "product_tile.cuh"

namespace bao {
namespace {

constexpr int kDepth = static_cast<int>(kFp8Group);
constexpr int kFloatThreads = 128;

// Few rows take few output features, so that many blocks read the weight, each with much of it under way.
template <int kTileRows>
struct Fp8Shape : TileShape<1, 4, kTileRows / 16, (kTileRows > 16 ? 2 : 1), (kTileRows > 16 ? 2 : 4)> {
  // Rows of shared tiles lie 16 bytes off a multiple of the banks.
  static constexpr int kLdX = kDepth + 8;
  static constexpr int kLdW = kDepth + 16;
  static constexpr int kXBytes = Fp8Shape::kRows * kLdX * 2;
  static constexpr int kStageBytes = kXBytes + Fp8Shape::kColumns * kLdW;
  static_assert(Fp8Shape::kStages * kStageBytes <= kLeastSharedBytes, "devices of compute capability 8.6, 8.9 and 12.0 have no more");
};

struct Fp8LinearArgs {
  int64_t ld_x, ld_out;
  // No experts: all rows are of one weight.
  int32_t num_experts, m, n, k;
  // Rows of x may be read 16 bytes at a time.
  bool whole;
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
  __device__ Fp8Block(const Fp8LinearArgs& a, Global<const T> x, Global<const unsigned char> w, RowTile rows)
      : k_(a.k), w_(w), tile_(rows, a.n), x_rows_{x, a.ld_x, rows.begin, rows.end, a.k, a.whole},
        w_rows_{w, fp8_row_bytes(a.k), tile_.column(), a.n, a.k, true}, shared_(shared_memory<unsigned char>()) {}

  __device__ void multiply() {
    multiply_parts<S::kStages>((k_ + kDepth - 1) / kDepth, [&](int part) { load(part); }, [&](int part) { accumulate(part); });
  }

  template <class Out>
  __device__ void store(Global<const float> biases, Global<Out> out, int64_t ld_out) {
    tile_.store(biases, out, ld_out);
  }

 private:
  __device__ T* rows(int part) { return reinterpret_cast<T*>(shared_ + part % S::kStages * S::kStageBytes); }
  __device__ unsigned char* columns(int part) { return shared_ + part % S::kStages * S::kStageBytes + S::kXBytes; }

  __device__ void load(int part) {
    copy_columns<S::kThreads, S::kRows, kDepth, S::kLdX>(rows(part), x_rows_, part * kDepth);
    copy_columns<S::kThreads, S::kColumns, kDepth, S::kLdW>(columns(part), w_rows_, part * kDepth);
  }

  __device__ float scale_of(int c, int i, int group) const {
    const int column = tile_.column_of(c, i);
    if (!tile_.has_column(column)) return 0;
    return cast<const float>(w_ + ((tile_.column() + column) * fp8_row_bytes(k_) + fp8_numbers_bytes(k_)))[group];
  }

  // A group of k.
  __device__ void accumulate(int part) {
    float scales[S::kColumnTiles][2];
#pragma unroll
    for (int c = 0; c < S::kColumnTiles; c++) {
      for (int i = 0; i < 2; i++) scales[c][i] = scale_of(c, i, part);
    }
    float products[S::kRowTiles][S::kColumnTiles][4] = {};
    const int lane = tile_.lane(), left = k_ - part * kDepth, depth = left < kDepth ? left : kDepth;
    for (int k = 0; k < depth; k += 16) {
      uint32_t b[S::kColumnTiles][2];
#pragma unroll
      for (int c = 0; c < S::kColumnTiles; c++) {
        const unsigned char* at = columns(part) + (tile_.column_of(c) + lane / 4) * S::kLdW + k + 2 * (lane % 4);
        b[c][0] = widen<T>(at);
        b[c][1] = widen<T>(at + 8);
      }
#pragma unroll
      for (int m = 0; m < S::kRowTiles; m++) {
        if (!tile_.has_row(tile_.row_of(m))) continue;
        uint32_t a[4];
        ldmatrix_x4(a, rows(part) + (tile_.row_of(m) + lane % 16) * S::kLdX + k + lane / 16 * 8);
#pragma unroll
        for (int c = 0; c < S::kColumnTiles; c++) mma_m16n8k16<T>(products[m][c], a, b[c]);
      }
    }
    tile_.for_each_sum([&](float& sum, int m, int c, int i) { sum = fmaf(products[m][c][i], scales[c][i % 2], sum); });
  }

  int k_;
  Global<const unsigned char> w_;
  ProductTile<S> tile_;
  MatrixRows<T> x_rows_;
  MatrixRows<unsigned char> w_rows_;
  unsigned char* shared_;
};

// Of one weight `w`, or of experts.
template <class T, class Out, int kRows>
__global__ void __launch_bounds__(Fp8Shape<kRows>::kThreads)
    fp8_linear_kernel(Global<const T> x, Global<const unsigned char> w, Global<const int64_t> weights, Global<const float> biases,
                      Global<const int32_t> expert_offsets, Global<Out> out, Fp8LinearArgs a) {
  await_previous_kernel();
  RowTile rows;
  if (!find_rows(expert_offsets, a.num_experts, a.m, static_cast<int>(blockIdx.y), kRows, rows)) return;
  Fp8Block<T, Fp8Shape<kRows>> block(a, x, a.num_experts > 0 ? weight_of<unsigned char>(weights, rows.expert) : w, rows);
  block.multiply();
  block.store(biases, out, a.ld_out);
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
    fp8_linear_float_kernel(Global<const float> x, Global<const unsigned char> w, Global<const int64_t> weights, Global<const float> biases,
                            Global<const int32_t> expert_offsets, Global<float> out, Fp8LinearArgs a) {
  await_previous_kernel();
  RowTile row;
  if (!find_rows(expert_offsets, a.num_experts, a.m, static_cast<int>(blockIdx.x), 1, row)) return;
  const int column = static_cast<int>(blockIdx.y) * kFloatThreads + static_cast<int>(threadIdx.x);
  if (column >= a.n) return;
  const Global<const unsigned char> weight = a.num_experts > 0 ? weight_of<unsigned char>(weights, row.expert) : w;
  const float sum = float_product(x + row.begin * a.ld_x, weight + column * fp8_row_bytes(a.k), a.k);
  out[row.begin * a.ld_out + column] = biases ? sum + biases[static_cast<int64_t>(row.expert) * a.n + column] : sum;
}

// The kernels' arguments but for Fp8LinearArgs.
struct Fp8Operands {
  const void *x, *w;
  const int64_t* weights;
  const float* biases;
  const int32_t* expert_offsets;
  void* out;
};

int32_t launch_fp8_linear_float(const Stream* stream, const Fp8Operands& o, const Fp8LinearArgs& args) {
  const dim3 grid(static_cast<unsigned>(args.m), static_cast<unsigned>(ceil_div(args.n, kFloatThreads)));
  return launched(launch("fp8_linear", fp8_linear_float_kernel, grid, kFloatThreads, 0, stream->stream, static_cast<const float*>(o.x),
                         static_cast<const unsigned char*>(o.w), o.weights, o.biases, o.expert_offsets, static_cast<float*>(o.out), args));
}

template <class T, class Out, int kRows>
int32_t launch_fp8_linear(const Stream* stream, const Fp8Operands& o, const Fp8LinearArgs& args) {
  using S = Fp8Shape<kRows>;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.n, S::kColumns)), max_tiles(args.m, args.num_experts, kRows));
  return launched(launch("fp8_linear", fp8_linear_kernel<T, Out, kRows>, grid, S::kThreads, S::kStages * S::kStageBytes, stream->stream,
                         static_cast<const T*>(o.x), static_cast<const unsigned char*>(o.w), o.weights, o.biases, o.expert_offsets,
                         static_cast<Out*>(o.out), args));
}

int32_t launch_fp8(const Stream* stream, const Fp8Operands& operands, bool float_out, Fp8LinearArgs args) {
  return with_activation(stream, [&](auto* type) -> int32_t {
    using T = Pointee<decltype(type)>;
    args.whole = has_whole_rows<T>(operands.x, args.ld_x, args.k);
    if constexpr (std::is_same_v<T, float>) {
      return launch_fp8_linear_float(stream, operands, args);
    } else if (args.m <= 16 * (args.num_experts > 0 ? args.num_experts : 1)) {
      return float_out ? launch_fp8_linear<T, float, 16>(stream, operands, args) : launch_fp8_linear<T, T, 16>(stream, operands, args);
    } else {
      return float_out ? launch_fp8_linear<T, float, 64>(stream, operands, args) : launch_fp8_linear<T, T, 64>(stream, operands, args);
    }
  });
}

}  // namespace

int32_t enqueue_fp8_linear(const Stream* stream, const void* x, int64_t ld_x, const void* w, const float* bias, void* out,
                           int64_t ld_out, bool float_out, int32_t m, int32_t n, int32_t k) {
  return launch_fp8(stream, {x, w, nullptr, bias, nullptr, out}, float_out, {ld_x, ld_out, 0, m, n, k, false});
}

int32_t enqueue_fp8_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, const float* biases,
                                   const int32_t* expert_offsets, int32_t num_experts, void* out, int64_t ld_out, int32_t rows,
                                   int32_t n, int32_t k) {
  return launch_fp8(stream, {x, nullptr, weights, biases, expert_offsets, out}, false, {ld_x, ld_out, num_experts, rows, n, k, false});
}

}  // namespace bao
