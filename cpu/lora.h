// Adapters' weights as add_lora finds them, on every device.
#pragma once

#include "abi.h"

namespace bao {

// What an adapter adds to one layer: its rank and a scale for each slice of the layer's output, then A and B, each from a multiple
// of 64 bytes on, in the type that add_lora is told.
//   A  [num_slices * rank, k]               the slices' A one after another
//   B  [columns / 64][rank][64]             the slices' B one after another, each in panels of columns, zero-padded to whole ones
struct LoraHeader {
  static constexpr int32_t kMaxSlices = 15;
  int32_t rank;
  float scales[kMaxSlices];
};
static_assert(sizeof(LoraHeader) == 64);

constexpr int64_t kLoraPanel = 64;

static constexpr int64_t lora_b_offset(int64_t num_slices, int64_t rank, int64_t k, int64_t element_bytes) {
  return static_cast<int64_t>(sizeof(LoraHeader)) + round_up(num_slices * rank * k * element_bytes, 64);
}

struct LoraArgs {
  const float* x;
  int64_t ld_x;
  const int32_t* rows;
  const int32_t* group_offsets;
  const int32_t* group_slots;
  const void* const* blocks;
  const int32_t* slice_offsets;
  float* out;
  int64_t ld_out;
  int64_t n, k;
  int32_t num_rows, num_groups, num_slices, max_rank, w_dtype;
  // A chunk of `lora_rows` is so many rows, of `lora_shrink` so many of A's rows, of `lora_expand` so many columns of out.
  int32_t rows_per_chunk, ranks_per_chunk, columns_per_chunk;
};

}  // namespace bao
