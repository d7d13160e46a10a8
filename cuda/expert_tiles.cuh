// Rows sorted by expert, cut into tiles of one expert each.
#pragma once

#include "platform.h"

namespace bao {

// Rows of one expert.
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

// Tiles of all experts together: one more than the rows fill for each expert whose last tile is not full.
inline unsigned max_tiles(int32_t rows, int32_t num_experts, int size) {
  const int64_t experts = rows < num_experts ? rows : num_experts;
  return static_cast<unsigned>(rows / size + experts);
}

template <class T>
__device__ inline Global<const T> weight_of(Global<const int64_t> weights, int expert) {
  return Global<const T>(reinterpret_cast<const T*>(static_cast<uintptr_t>(weights[expert])));
}

}  // namespace bao
