// Rows of x cut into tiles, each of one weight: rows sorted by expert, or, where `num_experts` is 0, all rows.
#pragma once

#include "../cpu/abi.h"
#include "platform.h"

namespace bao {

// Rows of one expert; of expert 0 where there are none.
struct RowTile {
  int expert, begin, end;
};

// The tile-th of all experts' tiles of `size` rows; false beyond the last one.
__device__ inline bool find_tile(Global<const int32_t> expert_offsets, int num_experts, int tile, int size, RowTile& found) {
  int begin = expert_offsets[0];
  for (int e = 0; e < num_experts; e++) {
    const int end = expert_offsets[e + 1], tiles = (end - begin + size - 1) / size;
    if (tile < tiles) {
      const int first = begin + tile * size;
      found = {e, first, first + size < end ? first + size : end};
      return true;
    }
    tile -= tiles;
    begin = end;
  }
  return false;
}

// The same for `rows` rows that may be all of one weight.
__device__ inline bool find_rows(Global<const int32_t> expert_offsets, int num_experts, int rows, int tile, int size, RowTile& found) {
  if (num_experts > 0) return find_tile(expert_offsets, num_experts, tile, size, found);
  const int begin = tile * size;
  found = {0, begin, rows - begin < size ? rows : begin + size};
  return begin < rows;
}

// Tiles of all rows: of experts one more than the rows fill for each one whose last tile is not full.
inline unsigned max_tiles(int32_t rows, int32_t num_experts, int size) {
  if (num_experts == 0) return static_cast<unsigned>(ceil_div(rows, size));
  const int64_t experts = rows < num_experts ? rows : num_experts;
  return static_cast<unsigned>(rows / size + experts);
}

template <class T>
__device__ inline Global<const T> weight_of(Global<const int64_t> weights, int expert) {
  return Global<const T>(reinterpret_cast<const T*>(static_cast<uintptr_t>(weights[expert])));
}

}  // namespace bao
