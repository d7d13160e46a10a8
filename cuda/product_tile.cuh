// What products on tensor cores share: a block multiplies rows of x with output features of one weight. Parts of k come into shared memory while those
// before them are multiplied, and each warp keeps the sums of its rows and output features.
#pragma once

#include "expert_tiles.cuh"
#include "ptx.cuh"

namespace bao {

// WarpRows by WarpColumns warps, each with RowTiles times 16 rows and ColumnTiles times 8 output features; Stages parts of k in shared memory.
template <int WarpRows, int WarpColumns, int RowTiles, int ColumnTiles, int Stages>
struct TileShape {
  static constexpr int kWarpColumns = WarpColumns, kRowTiles = RowTiles, kColumnTiles = ColumnTiles, kStages = Stages;
  static constexpr int kThreads = 32 * WarpRows * WarpColumns;
  static constexpr int kRows = 16 * RowTiles * WarpRows, kColumns = 8 * ColumnTiles * WarpColumns;
};

// Where a thread's fragments lie in its block's tile, and its sums.
template <class S>
class ProductTile {
 public:
  __device__ ProductTile(RowTile rows, int n)
      : rows_(rows), column_(static_cast<int>(blockIdx.x) * S::kColumns), n_(n), lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32) {}

  __device__ int lane() const { return lane_; }
  // Of the block's first output feature, which is `column()` of all, and of its rows: the first of the warp's m-th or c-th tile.
  __device__ int row_of(int m) const { return 16 * (S::kRowTiles * (warp_ / S::kWarpColumns) + m); }
  __device__ int column_of(int c) const { return 8 * (S::kColumnTiles * (warp_ % S::kWarpColumns) + c); }
  // Of the tile's accumulator i.
  __device__ int row_of(int m, int i) const { return row_of(m) + lane_ / 4 + 8 * (i / 2); }
  __device__ int column_of(int c, int i) const { return column_of(c) + 2 * (lane_ % 4) + i % 2; }
  __device__ int column() const { return column_; }
  __device__ bool has_row(int row) const { return rows_.begin + row < rows_.end; }
  __device__ bool has_column(int column) const { return column_ + column < n_; }

  // Calls f with each of the thread's sums, and what names it: m, c and i.
  template <class F>
  __device__ void for_each_sum(F f) {
#pragma unroll
    for (int m = 0; m < S::kRowTiles; m++) {
#pragma unroll
      for (int c = 0; c < S::kColumnTiles; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) f(sums[m][c][i], m, c, i);
      }
    }
  }

  template <class Out>
  __device__ void store(Global<const float> biases, Global<Out> out, int64_t ld_out) {
    for_each_sum([&](float sum, int m, int c, int i) {
      const int row = row_of(m, i), column = column_of(c, i);
      if (!has_row(row) || !has_column(column)) return;
      const float bias = biases ? biases[static_cast<int64_t>(rows_.expert) * n_ + column_ + column] : 0.0f;
      out[(rows_.begin + row) * ld_out + column_ + column] = from_float<Out>(sum + bias);
    });
  }

  float sums[S::kRowTiles][S::kColumnTiles][4] = {};

 private:
  RowTile rows_;
  int column_, n_, lane_, warp_;
};

// `load(part)` starts the copies of a part of k, `accumulate(part)` uses it: up to kStages parts are in shared memory, all but one of them under way.
template <int kStages, class Load, class Accumulate>
__device__ void multiply_parts(int parts, Load load, Accumulate accumulate) {
  for (int part = 0; part < kStages - 1; part++) {
    if (part < parts) load(part);
    cp_async_commit();
  }
  for (int part = 0; part < parts; part++) {
    if (part + kStages - 1 < parts) load(part + kStages - 1);
    cp_async_commit();
    cp_async_wait<kStages - 1>();
    __syncthreads();
    accumulate(part);
    __syncthreads();
  }
  cp_async_wait<0>();
}

// Rows `begin` to `end` of a matrix with k columns. `whole`: all begin at multiples of 16 bytes and have whole ones.
template <class T>
struct MatrixRows {
  Global<const T> matrix;
  int64_t ld;
  int begin, end, k;
  bool whole;
};

// Copies kDepth columns from `first` on, of kRows rows, to rows of shared memory that are kLd elements apart; zeros for what isn't there. The copies of
// whole rows are under way on return.
template <int kThreads, int kRows, int kDepth, int kLd, class T>
__device__ void copy_columns(T* to, const MatrixRows<T>& rows, int first) {
  constexpr int kElements = 16 / sizeof(T), kPieces = kDepth / kElements;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int row = rows.begin + i / kPieces, k = first + i % kPieces * kElements;
    const bool there = row < rows.end && k < rows.k;
    const Global<const T> from = rows.matrix + (there ? row * rows.ld + k : 0);
    T* piece = to + i / kPieces * kLd + i % kPieces * kElements;
    if (rows.whole) {
      cp_async_16(piece, address_of(from, there ? 16 : 0, 16), there);
    } else {
      for (int j = 0; j < kElements; j++) piece[j] = there && k + j < rows.k ? from[j] : T{};
    }
  }
}

// Whether `MatrixRows` of such a matrix are whole.
template <class T>
bool has_whole_rows(const void* matrix, int64_t ld, int64_t k) {
  constexpr int64_t kElements = 16 / sizeof(T);
  return k % kElements == 0 && ld % kElements == 0 && reinterpret_cast<uintptr_t>(matrix) % 16 == 0;
}

}  // namespace bao
