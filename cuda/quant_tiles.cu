// Rows times weights of 8 or 4 bits on tensor cores, by tiles. Numbers are copied as they are; those of 4 bits become bytes, less their zero point, when
// they become fragments. A group's products are summed as integers, groups in order.
#include "product_tile.cuh"
#include "quant_group.cuh"
#include "quantized.h"

namespace bao {
namespace {

// Of k, in shared memory: whole groups.
constexpr int kDepth = 128;

template <int Bits_, class Tile>
struct QuantizedTileShape : Tile {
  static constexpr int Bits = Bits_;
  static constexpr int kGroup = static_cast<int>(quant_group(Bits)), kGroups = kDepth / kGroup;
  static constexpr int kColumnBytes = kDepth * Bits / 8, kGroupColumnBytes = kGroup * Bits / 8;
  // Rows of shared tiles lie 16 bytes off a multiple of 32, so that 8 rows are read without a conflict.
  static constexpr int kLdX = kDepth + 16, kLdW = kColumnBytes + 16;
  static constexpr int kXBytes = Tile::kRows * kLdX, kWBytes = Tile::kColumns * kLdW;
  static constexpr int kXScales = kXBytes + kWBytes, kWScales = kXScales + kGroups * Tile::kRows * 4;
  static constexpr int kStageBytes = kWScales + kGroups * Tile::kColumns * 4;
  static_assert(Tile::kStages * kStageBytes <= kLeastSharedBytes, "devices of compute capability 8.6, 8.9 and 12.0 have no more");
  static_assert(Tile::kColumnTiles % 2 == 0, "ldmatrix reads two at once");
};

// A few rows take few output features, so that many blocks read the weight, each with much of it under way. The large tile multiplies most for each byte
// that it reads.
using SmallTile = TileShape<1, 2, 1, 2, 4>;
using MiddleTile = TileShape<2, 2, 2, 4, 3>;
using LargeTile = TileShape<2, 4, 4, 4, 2>;

template <class S>
class QuantizedBlock {
 public:
  __device__ QuantizedBlock(const QuantizedShape& a, Global<const uint32_t> x, Global<const float> x_scales, Global<const uint32_t> w, RowTile rows)
      : groups_(a.groups), tile_(rows, a.n),
        x_rows_{cast<const unsigned char>(x), static_cast<int64_t>(a.groups) * S::kGroup, rows.begin, rows.end, a.groups * S::kGroup, true},
        w_rows_{cast<const unsigned char>(w), quantized_row_words(a.k, S::Bits) * 4, tile_.column(), a.n,
                static_cast<int>(quantized_number_words(a.k, S::Bits)) * 4, true},
        x_scales_(x_scales), w_scales_(w + quantized_number_words(a.k, S::Bits)), shared_(shared_memory<unsigned char>()) {}

  __device__ void multiply() {
    // Warps without rows or output features of their own help to load.
    const bool has_outputs = tile_.has_row(tile_.row_of(0)) && tile_.has_column(tile_.column_of(0));
    multiply_parts<S::kStages>((groups_ + S::kGroups - 1) / S::kGroups, [&](int part) { load(part); }, [&](int part) {
      if (has_outputs) accumulate(part);
    });
  }

  template <class Out>
  __device__ void store(Global<const float> biases, Global<Out> out, int64_t ld_out) {
    tile_.store(biases, out, ld_out);
  }

 private:
  using Products = int32_t[S::kRowTiles][S::kColumnTiles][4];

  __device__ unsigned char* stage(int part) { return shared_ + part % S::kStages * S::kStageBytes; }
  __device__ unsigned char* columns(int part) { return stage(part) + S::kXBytes; }
  // Of the group-th group of the part, by row and by output feature of the block.
  __device__ float* x_scales(int part, int group) { return reinterpret_cast<float*>(stage(part) + S::kXScales) + group * S::kRows; }
  __device__ uint32_t* w_scales(int part, int group) {
    return reinterpret_cast<uint32_t*>(stage(part) + S::kWScales) + group * S::kColumns;
  }

  __device__ void load(int part) {
    copy_columns<S::kThreads, S::kRows, kDepth, S::kLdX>(stage(part), x_rows_, part * kDepth);
    copy_columns<S::kThreads, S::kColumns, S::kColumnBytes, S::kLdW>(columns(part), w_rows_, part * S::kColumnBytes);
    copy_scales<S::kRows>(x_scales(part, 0), x_scales_, groups_, x_rows_.begin, x_rows_.end, part);
    copy_scales<S::kColumns>(w_scales(part, 0), w_scales_, w_rows_.ld / 4, w_rows_.begin, w_rows_.end, part);
  }

  // Those of the part's groups, of kCount rows from `begin` on that are ld apart; zeros past the last ones.
  template <int kCount, class V>
  __device__ void copy_scales(V* to, Global<const V> from, int64_t ld, int begin, int end, int part) {
    for (int i = static_cast<int>(threadIdx.x); i < kCount * S::kGroups; i += S::kThreads) {
      const int row = begin + i % kCount, group = part * S::kGroups + i / kCount;
      const bool there = row < end && group < groups_;
      cp_async_4(to + i, address_of(from + (there ? row * ld + group : 0), there ? 4 : 0, 4), there);
    }
  }

  __device__ void accumulate(int part) {
#pragma unroll
    for (int group = 0; group < S::kGroups; group++) {
      if (part * S::kGroups + group >= groups_) break;
      Products products;
      multiply_group(part, group, products);
      add_products(part, group, products);
    }
  }

  // Sums begin with kRound's bits: as floats they are the integers, which are below 2^22, plus kRound.
  __device__ void multiply_group(int part, int group, Products& products) {
#pragma unroll
    for (int m = 0; m < S::kRowTiles; m++) {
#pragma unroll
      for (int c = 0; c < S::kColumnTiles; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) products[m][c][i] = kRoundBits;
      }
    }
    const int lane = tile_.lane();
    uint32_t zeros[S::kColumnTiles] = {};
#pragma unroll
    for (int c = 0; c < S::kColumnTiles; c++) {
      if (S::Bits == 4) zeros[c] = zeros_of(w_scales(part, group)[tile_.column_of(c) + lane / 4]);
    }
    // 32 bytes of the output features are 32 or 64 of k: one mma, or one for each 16 bytes.
#pragma unroll
    for (int byte = 0; byte < S::kGroupColumnBytes; byte += 32) {
      uint32_t words[S::kColumnTiles][2];
      load_words(columns(part) + group * S::kGroupColumnBytes + byte, words);
#pragma unroll
      for (int half = 0; half < 8 / S::Bits; half++) {
        multiply_fragments(stage(part) + group * S::kGroup + byte * 8 / S::Bits + half * 32, words, half, zeros, products);
      }
    }
  }

  // 16 bytes of each output feature, then the next 16.
  __device__ void load_words(const unsigned char* columns, uint32_t (&words)[S::kColumnTiles][2]) {
    const int lane = tile_.lane();
#pragma unroll
    for (int c = 0; c < S::kColumnTiles; c += 2) {
      uint32_t four[4];
      ldmatrix_x4(four, columns + (tile_.column_of(c) + lane / 16 * 8 + lane % 8) * S::kLdW + lane / 8 % 2 * 16);
      for (int i = 0; i < 4; i++) words[c + i / 2][i % 2] = four[i];
    }
  }

  // 32 of k. Of 8 bits they are both words; of 4 bits the halves of one, to which the order of x fits.
  __device__ void multiply_fragments(const unsigned char* rows, const uint32_t (&words)[S::kColumnTiles][2], int half,
                                     const uint32_t (&zeros)[S::kColumnTiles], Products& products) {
    uint32_t b[S::kColumnTiles][2];
#pragma unroll
    for (int c = 0; c < S::kColumnTiles; c++) {
      for (int i = 0; i < 2; i++) b[c][i] = signed_bytes<S::Bits>(words[c][S::Bits == 8 ? i : half], i, zeros[c]);
    }
#pragma unroll
    for (int m = 0; m < S::kRowTiles; m++) {
      if (!tile_.has_row(tile_.row_of(m))) continue;
      uint32_t a[4];
      ldmatrix_x4(a, rows + (tile_.row_of(m) + tile_.lane() % 16) * S::kLdX + tile_.lane() / 16 * 16);
#pragma unroll
      for (int c = 0; c < S::kColumnTiles; c++) mma_m16n8k32_s8(products[m][c], a, b[c]);
    }
  }

  __device__ void add_products(int part, int group, const Products& products) {
    const float* of_row = x_scales(part, group);
    const uint32_t* of_column = w_scales(part, group);
    tile_.for_each_sum([&](float& sum, int m, int c, int i) {
      const float product = __fadd_rn(__uint_as_float(static_cast<uint32_t>(products[m][c][i])), -kRound);
      sum = __fadd_rn(sum, scaled(product, scale_of(of_column[tile_.column_of(c, i)]), of_row[tile_.row_of(m, i)]));
    });
  }

  int groups_;
  ProductTile<S> tile_;
  MatrixRows<unsigned char> x_rows_, w_rows_;
  Global<const float> x_scales_;
  Global<const uint32_t> w_scales_;
  unsigned char* shared_;
};

// Rows of one weight `w`, or of experts.
template <class Out, class S>
__global__ void __launch_bounds__(S::kThreads)
    quantized_tiles_kernel(Global<const uint32_t> x, Global<const float> x_scales, Global<const uint32_t> w, Global<const int64_t> weights,
                           Global<const float> biases, Global<const int32_t> expert_offsets, Global<Out> out, QuantizedShape a) {
  await_previous_kernel();
  RowTile rows;
  if (!find_rows(expert_offsets, a.num_experts, a.m, static_cast<int>(blockIdx.y), S::kRows, rows)) return;
  QuantizedBlock<S> block(a, x, x_scales, a.num_experts > 0 ? weight_of<uint32_t>(weights, rows.expert) : w, rows);
  block.multiply();
  block.store(biases, out, a.ld_out);
}

template <class Out, class S>
int32_t launch_tiles(const Stream* stream, const QuantizedProduct& p) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.n, S::kColumns)), max_tiles(p.m, p.num_experts, S::kRows));
  return launched(launch("quantized_tiles", quantized_tiles_kernel<Out, S>, grid, S::kThreads, S::kStages * S::kStageBytes, stream->stream,
                         p.x.numbers, p.x.scales, p.weight, p.weights, p.biases, p.expert_offsets, static_cast<Out*>(p.out),
                         QuantizedShape(p)));
}

}  // namespace

int32_t enqueue_quantized_tiles(const Stream* stream, const QuantizedProduct& p) {
  return with_output(stream, p, [&](auto* type, auto bits) {
    using Out = Pointee<decltype(type)>;
    constexpr int kBits = decltype(bits)::value;
    const int64_t rows = p.num_experts > 0 ? ceil_div(p.m, p.num_experts) : p.m;
    if (rows <= SmallTile::kRows) return launch_tiles<Out, QuantizedTileShape<kBits, SmallTile>>(stream, p);
    // Of large tiles there must be one for every multiprocessor.
    const int64_t large_tiles = ceil_div(rows, LargeTile::kRows) * (p.num_experts > 0 ? p.num_experts : 1) * ceil_div(p.n, LargeTile::kColumns);
    if (rows < LargeTile::kRows || large_tiles < stream->num_multiprocessors) {
      return launch_tiles<Out, QuantizedTileShape<kBits, MiddleTile>>(stream, p);
    }
    return launch_tiles<Out, QuantizedTileShape<kBits, LargeTile>>(stream, p);
  });
}

}  // namespace bao
