// Few rows times weights of 8 or 4 bits, as in decode: what they cost is reading the weight. Eight lanes have an output feature, 128 bytes of it at a
// time, four output features a warp.
#include "expert_tiles.cuh"
#include "ptx.cuh"
#include "quant_group.cuh"
#include "quantized.h"

namespace bao {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = kFewRows;
constexpr int kColumnLanes = 8;
constexpr int kColumns = kWarps * 32 / kColumnLanes;
// Pieces of an output feature that a lane has under way together.
constexpr int kLoads = 8;

// What a lane reads at once: a part of one group.
struct alignas(16) Words {
  uint32_t word[4];
};

template <int Bits>
class FeatureLanes {
 public:
  // Halves of a word of weights, each with a word of x.
  static constexpr int kHalves = 8 / Bits;
  static constexpr int kGroupLanes = static_cast<int>(quant_group(Bits)) * Bits / 8 / 16;
  static constexpr int kGroups = kColumnLanes / kGroupLanes;

  __device__ FeatureLanes(Global<const uint32_t> w, int column, const QuantizedShape& a)
      : a_(a), lane_(static_cast<int>(threadIdx.x) % kColumnLanes), count_(static_cast<int>(quantized_number_words(a.k, Bits)) / 4) {
    const Global<const uint32_t> row = w + column * quantized_row_words(a.k, Bits);
    numbers_ = cast<const Words>(row);
    scales_ = row + quantized_number_words(a.k, Bits);
  }

  // sums[r] = row first_row + r of x times the output feature. Sums within a group are integers, groups are added in order; all lanes get all sums.
  __device__ void multiply(Global<const uint32_t> x, Global<const float> x_scales, int first_row, int num_rows, float (&sums)[kRows]) {
    const Global<const Words> rows = cast<const Words>(x + first_row * x_words());
    const Global<const float> row_scales = x_scales + static_cast<int64_t>(first_row) * a_.groups;
    for (int begin = 0; begin < count_; begin += kLoads * kColumnLanes) {
      load(begin);
#pragma unroll
      for (int l = 0; l < kLoads; l++) {
        const int at = begin + l * kColumnLanes + lane_;
        // All lanes of the warp have the same part of their output features.
        if (at - lane_ >= count_) break;
#pragma unroll
        for (int r = 0; r < kRows; r++) {
          if (r < num_rows) add(l, at, rows + r * (x_words() / 4), row_scales + r * a_.groups, sums[r]);
        }
      }
    }
  }

 private:
  __device__ int64_t x_words() const { return static_cast<int64_t>(a_.groups) * (quant_group(Bits) / 4); }

  __device__ void load(int begin) {
#pragma unroll
    for (int l = 0; l < kLoads; l++) {
      const int at = begin + l * kColumnLanes + lane_;
      loaded_[l] = Words{};
      loaded_scales_[l] = 0;
      if (at >= count_) continue;
      loaded_[l] = load_streaming(numbers_, at);
      loaded_scales_[l] = scales_[at / kGroupLanes];
    }
  }

  // The products of the l-th of the loaded pieces, which is piece `at`, and a row of x.
  __device__ void add(int l, int at, const Global<const Words>& row, const Global<const float>& row_scales, float& sum) const {
    const uint32_t zeros = zeros_of(loaded_scales_[l]);
    int product = 0;
    float x_scale = 0;
    if (at < count_) {
      x_scale = row_scales[at / kGroupLanes];
#pragma unroll
      for (int half = 0; half < kHalves; half++) {
        const Words values = row[static_cast<int64_t>(at) * kHalves + half];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const uint32_t weights = signed_bytes<Bits>(loaded_[l].word[j], half, zeros);
          product = __dp4a(static_cast<int>(weights), static_cast<int>(values.word[j]), product);
        }
      }
    }
#pragma unroll
    for (int lanes = kGroupLanes / 2; lanes > 0; lanes /= 2) product += __shfl_xor_sync(kFullWarp, product, lanes);
    const float part = scaled(static_cast<float>(product), scale_of(loaded_scales_[l]), x_scale);
    const int first = static_cast<int>(threadIdx.x) % 32 / kColumnLanes * kColumnLanes;
#pragma unroll
    for (int g = 0; g < kGroups; g++) sum = __fadd_rn(sum, __shfl_sync(kFullWarp, part, first + g * kGroupLanes));
  }

  const QuantizedShape& a_;
  int lane_, count_;
  Global<const Words> numbers_;
  Global<const uint32_t> scales_;
  Words loaded_[kLoads];
  uint32_t loaded_scales_[kLoads];
};

// Rows of one weight `w`, or of experts.
template <class Out, int Bits>
__global__ void __launch_bounds__(kThreads)
    quantized_few_rows_kernel(Global<const uint32_t> x, Global<const float> x_scales, Global<const uint32_t> w,
                              Global<const int64_t> weights, Global<const float> biases, Global<const int32_t> expert_offsets,
                              Global<Out> out, QuantizedShape a) {
  await_previous_kernel();
  RowTile rows;
  if (!find_rows(expert_offsets, a.num_experts, a.m, static_cast<int>(blockIdx.y), kRows, rows)) return;
  const int column = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) / kColumnLanes;
  // One past the last is computed as the last, and not stored.
  FeatureLanes<Bits> feature(a.num_experts > 0 ? weight_of<uint32_t>(weights, rows.expert) : w, column < a.n ? column : a.n - 1, a);
  float sums[kRows] = {};
  feature.multiply(x, x_scales, rows.begin, rows.end - rows.begin, sums);
  if (column >= a.n) return;
  const float bias = biases ? biases[static_cast<int64_t>(rows.expert) * a.n + column] : 0.0f;
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const int row = rows.begin + r;
    if (row < rows.end && static_cast<int>(threadIdx.x) % kColumnLanes == r) out[row * a.ld_out + column] = from_float<Out>(sums[r] + bias);
  }
}

}  // namespace

int32_t enqueue_quantized_few_rows(const Stream* stream, const QuantizedProduct& p) {
  return with_output(stream, p, [&](auto* type, auto bits) {
    using Out = Pointee<decltype(type)>;
    const dim3 grid(static_cast<unsigned>(ceil_div(p.n, kColumns)), max_tiles(p.m, p.num_experts, kRows));
    return launched(launch("quantized_few_rows", quantized_few_rows_kernel<Out, decltype(bits)::value>, grid, kThreads, 0, stream->stream,
                           p.x.numbers, p.x.scales, p.weight, p.weights, p.biases, p.expert_offsets, static_cast<Out*>(p.out),
                           QuantizedShape(p)));
  });
}

}  // namespace bao
