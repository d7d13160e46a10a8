// What adapters add to a linear layer. Rows come grouped by adapter; a tile of rows is taken in runs of one adapter, so that a weight that was
// read serves all of them. Each sum has one order, whatever the tile: a row's bits are the same in every batch.
#include "../cpu/lora.h"

#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kTileRows = 8;
constexpr unsigned kThreads = 256;
constexpr int kWarps = kThreads / 32;

struct Groups {
  const int32_t* rows;
  const int32_t* offsets;
  const int32_t* slots;
  const int64_t* blocks;
  int32_t num_rows, num_groups;
};

// What a thread may look into; made of the plain pointers once a kernel runs.
struct GroupTable {
  Global<const int32_t> rows, offsets, slots;
  Global<const int64_t> blocks;
  int num_rows, num_groups;

  __device__ explicit GroupTable(const Groups& g)
      : rows(g.rows), offsets(g.offsets), slots(g.slots), blocks(g.blocks), num_rows(g.num_rows), num_groups(g.num_groups) {}
};

// Calls f(block, begin, end) for each run of rows of one adapter in a tile; block is 0 where it has no weights for this layer.
template <class Fn>
__device__ inline void for_each_run(const GroupTable& table, int tile, Fn f) {
  const int begin = tile * kTileRows;
  const int end = begin + kTileRows < table.num_rows ? begin + kTileRows : table.num_rows;
  for (int g = 0; g < table.num_groups; g++) {
    const int group_begin = table.offsets[g], group_end = table.offsets[g + 1];
    const int first = begin > group_begin ? begin : group_begin;
    const int last = end < group_end ? end : group_end;
    if (first < last) f(table.blocks[table.slots[g]], first, last);
  }
}

__device__ inline Global<const LoraHeader> header_of(int64_t block) {
  return Global<const LoraHeader>(reinterpret_cast<const LoraHeader*>(block));
}

// t[i, j] = scale * x[rows[i]] · A_j: a warp for each j of A's rows, by a tile of rows.
template <class T, class W>
__global__ void lora_shrink_kernel(Groups groups, Global<const T> x, int64_t ld_x, Global<float> t, int ld_t, int num_slices, int k) {
  await_previous_kernel();
  const int j = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const GroupTable table(groups);
  for_each_run(table, static_cast<int>(blockIdx.x), [&](int64_t block, int first, int last) {
    if (block == 0) return;
    const LoraHeader header = *header_of(block);
    if (j >= num_slices * header.rank) return;
    const Global<const W> a(reinterpret_cast<const W*>(block + static_cast<int64_t>(sizeof(LoraHeader))));
    float sums[kTileRows] = {};
    for (int i = lane; i < k; i += 32) {
      const float weight = to_float(a[static_cast<int64_t>(j) * k + i]);
#pragma unroll
      for (int r = 0; r < kTileRows; r++) {
        if (r < last - first) sums[r] += weight * to_float(x[table.rows[first + r] * ld_x + i]);
      }
    }
#pragma unroll
    for (int r = 0; r < kTileRows; r++) {
      if (r >= last - first) continue;
      const float sum = warp_reduce(sums[r], Sum());
      if (lane == 0) t[static_cast<int64_t>(first + r) * ld_t + j] = sum * header.scales[j / header.rank];
    }
  });
}

// out[rows[i], column] += Σ_r t[i, r] * B[r, column]: a thread for each column, by a tile of rows.
template <class T, class W>
__global__ void lora_expand_kernel(Groups groups, Global<const float> t, int ld_t, Global<const int32_t> slice_offsets, int num_slices,
                                   Global<T> out, int64_t ld_out, int n, int k) {
  await_previous_kernel();
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (column >= n) return;
  int slice = 0;
  int64_t columns_before = 0;
  for (; column >= slice_offsets[slice + 1]; slice++) {
    columns_before += round_up(slice_offsets[slice + 1] - slice_offsets[slice], kLoraPanel);
  }
  const int64_t own = column - slice_offsets[slice];
  const GroupTable table(groups);
  for_each_run(table, static_cast<int>(blockIdx.x), [&](int64_t block, int first, int last) {
    if (block == 0) return;
    const int rank = (*header_of(block)).rank;
    const int64_t b_offset = lora_b_offset(num_slices, rank, k, sizeof(W));
    const Global<const W> b(reinterpret_cast<const W*>(block + b_offset));
    const int64_t b_column = rank * (columns_before + own / kLoraPanel * kLoraPanel) + own % kLoraPanel;
    float sums[kTileRows] = {};
    for (int r = 0; r < rank; r++) {
      const float weight = to_float(b[b_column + r * kLoraPanel]);
#pragma unroll
      for (int i = 0; i < kTileRows; i++) {
        if (i < last - first) sums[i] += t[static_cast<int64_t>(first + i) * ld_t + slice * rank + r] * weight;
      }
    }
#pragma unroll
    for (int i = 0; i < kTileRows; i++) {
      if (i >= last - first) continue;
      const int64_t at = table.rows[first + i] * ld_out + column;
      out[at] = from_float<T>(to_float(out[at]) + sums[i]);
    }
  });
}

unsigned blocks_of(int64_t total, int64_t each) { return static_cast<unsigned>(ceil_div(total, each)); }

}  // namespace
}  // namespace bao

using namespace bao;

// Bytes of workspace that add_lora takes.
BAO_EXPORT int64_t bao_add_lora_workspace_bytes(int32_t num_rows, int32_t num_slices, int32_t max_rank) {
  return static_cast<int64_t>(num_rows) * num_slices * max_rank * static_cast<int64_t>(sizeof(float));
}

BAO_EXPORT int32_t bao_add_lora(const Stream* stream, const void* x, int64_t ld_x, const int32_t* rows, const int32_t* group_offsets,
                                const int32_t* group_slots, int32_t num_rows, int32_t num_groups, const int64_t* blocks,
                                int32_t w_dtype, const int32_t* slice_offsets, int32_t num_slices, int32_t max_rank, void* out,
                                int64_t ld_out, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (num_rows < 0 || num_groups < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n || max_rank <= 0) return kBadShape;
  if (num_slices <= 0 || num_slices > LoraHeader::kMaxSlices) return kBadShape;
  if (!is_float_dtype(w_dtype)) return kBadDType;
  if (num_rows == 0) return kOk;
  if (!x || !rows || !group_offsets || !group_slots || !blocks || !slice_offsets || !out) return kNullPointer;
  if (stream->workspace_bytes < bao_add_lora_workspace_bytes(num_rows, num_slices, max_rank)) return kOutOfMemory;

  const Groups groups{rows, group_offsets, group_slots, blocks, num_rows, num_groups};
  const int ld_t = num_slices * max_rank;
  auto* t = static_cast<float*>(stream->workspace);
  const unsigned tiles = blocks_of(num_rows, kTileRows);
  return with_activation(stream, [&](auto* type) {
    return with_dtype(w_dtype, [&](auto* w_type) {
      using T = Pointee<decltype(type)>;
      using W = Pointee<decltype(w_type)>;
      const int32_t shrunk = launch("lora_shrink", lora_shrink_kernel<T, W>, dim3(tiles, blocks_of(ld_t, kWarps)), kThreads, 0,
                                    stream->stream, groups, static_cast<const T*>(x), ld_x, t, ld_t, num_slices, k);
      if (shrunk != 0) return launched(shrunk);
      return launched(launch("lora_expand", lora_expand_kernel<T, W>, dim3(tiles, blocks_of(n, kThreads)), kThreads, 0, stream->stream,
                             groups, static_cast<const float*>(t), ld_t, slice_offsets, num_slices, static_cast<T*>(out), ld_out, n, k));
    });
  });
}
