// Loops over elements by all threads of a grid.
#pragma once

#include "platform.h"

namespace bao {

constexpr unsigned kElementThreads = 256;

// Blocks of kElementThreads for so many elements; what is beyond the grid's limit is looped over.
inline unsigned element_blocks(int64_t elements) {
  constexpr int64_t kMaxBlocks = 65535;
  const int64_t blocks = (elements + kElementThreads - 1) / kElementThreads;
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

__device__ inline int64_t first_element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace bao
