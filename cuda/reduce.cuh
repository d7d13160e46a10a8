// Reductions in a fixed order: the same bits for the same values, however the grid is laid out.
#pragma once

#include "platform.h"
#include "ptx.cuh"

namespace bao {

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// All lanes get the result.
template <class T, class Op>
__device__ inline T warp_reduce(T value, Op op) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value = op(value, __shfl_xor_sync(kFullWarp, value, lanes));
  return value;
}

// All threads get the result. The block is whole warps; `scratch` is shared memory for one value a warp, free again on return.
template <class T, class Op>
__device__ inline T block_reduce(T value, Op op, T* scratch) {
  const unsigned warps = blockDim.x / 32;
  value = warp_reduce(value, op);
  if (warps == 1) return value;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  T result = scratch[0];
  for (unsigned w = 1; w < warps; w++) result = op(result, scratch[w]);
  __syncthreads();
  return result;
}

}  // namespace bao
