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

// Elements that are read or written at once.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < 16 ? sizeof(T) * kWidth : 16) Pack {
  T element[kWidth];
};

// How wide a matrix's rows are taken: 8 elements where all begin at multiples of that.
constexpr int kPack = 8;

inline bool is_packable(int64_t n) { return n % kPack == 0; }
template <class... Pointers>
bool is_packable(int64_t n, const void* pointer, Pointers... others) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && is_packable(n, others...);
}

// A grid for rows of n elements, of which a thread takes `width` together. More rows than a grid has are looped over.
inline dim3 row_grid(int64_t rows, int64_t n, int width) {
  constexpr int64_t kMaxRows = 65535;
  return dim3(element_blocks((n + width - 1) / width), static_cast<unsigned>(rows < kMaxRows ? rows : kMaxRows));
}

// Calls f(row, column) for every kWidth-th column of every row, on a row_grid.
template <int kWidth, class F>
__device__ inline void for_each_pack(int64_t rows, int n, F f) {
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int64_t column = first_element() * kWidth; column < n; column += element_step() * kWidth) f(row, static_cast<int>(column));
  }
}

template <int kWidth, class T>
__device__ inline Pack<T, kWidth> read_pack(Global<const T> from) {
  return cast<const Pack<T, kWidth>>(from)[0];
}
template <int kWidth, class T>
__device__ inline void write_pack(Global<T> to, const Pack<T, kWidth>& pack) {
  cast<Pack<T, kWidth>>(to)[0] = pack;
}

}  // namespace bao
