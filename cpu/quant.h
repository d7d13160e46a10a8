// Quantized weights: their layout, and the kernels' arguments.
#pragma once

#include "pieces.h"

namespace bao {

// QUANTIZATION_CODES of src/device/quantization-scheme.ts.
enum QuantizationScheme : int32_t { kQuantInt8 = 0, kQuantInt4 = 1, kQuantFp8 = 2 };
static constexpr bool is_quantization(int32_t scheme) { return scheme >= kQuantInt8 && scheme <= kQuantFp8; }
static constexpr int32_t integer_bits(int32_t scheme) { return scheme == kQuantInt8 ? 8 : 4; }

// Weights of 8-bit floats (E4M3): a weight is a number times the scale that kFp8Group consecutive k share; where a number of a group
// isn't one, its scale isn't either. On the CPU they lie in panels of kFp8PanelColumns output features, zero-padded to whole panels. A
// panel holds, group after group:
//   [32] scales, float32
//   [k of the group][32] numbers
constexpr int64_t kFp8PanelColumns = 32;
constexpr int64_t kFp8Group = 128;
constexpr float kFp8Greatest = 448.0f;
// Below that a scale's reciprocal is not finite; such groups are all zero.
constexpr float kFp8SmallestScale = 1e-36f;
// Bytes of a column's first k, which are whole groups or all.
static constexpr int64_t fp8_column_bytes(int64_t k) { return k + ceil_div(k, kFp8Group) * 4; }

// Weights of 8 or 4 bits in panels of kQuantPanelColumns output features, zero-padded to whole panels
// and words. A word is 32 bits of one column: quant_word consecutive k as unsigned numbers; 4-bit numbers have the first four k in
// the low halves of its bytes. quant_group consecutive k share a scale and a zero point. A panel holds, group after group:
//   [16] scale and zero: bfloat16 in the upper half, an integer from 0 to 128 in the lower; weight = (number - zero) * scale
//   [words of the group][16] numbers
constexpr int64_t kQuantPanelColumns = 16;
// The zero of all 8-bit numbers.
constexpr int32_t kByteZero = 128;
static constexpr int64_t quant_word(int32_t bits) { return 32 / bits; }
static constexpr int64_t quant_group(int32_t bits) { return bits == 8 ? 128 : 64; }
// 32-bit words of a column.
static constexpr int64_t quant_column_words(int64_t k, int32_t bits) {
  return ceil_div(k, quant_word(bits)) + ceil_div(k, quant_group(bits));
}

// Rows that share a pass over a part of the weights, at most: so few that they stay in the second-level cache meanwhile.
constexpr int64_t kQuantizedRows = 96;

struct QuantizedLinearArgs {
  const float* x;
  int64_t ld_x;
  const uint32_t* w;
  const float* bias;
  float* out;
  int64_t ld_out;
  int64_t m, n, k;
  int32_t bits;
  // x lies quantized in the workspace; else each chunk quantizes it for itself.
  int32_t shared;
  // A piece is rows_per_piece rows by some panels; pieces of the same panels are neighbours.
  int32_t rows_per_piece;
  PanelPieces pieces;
};

// Products of the rows of each expert with that expert's weight; see quantized_grouped_linear in src/device/ops.ts. All rows of x lie quantized in the
// workspace. A chunk is panels_per_chunk panels of an expert.
struct QuantizedGroupedLinearArgs {
  const uint32_t* const* weights;
  const float* biases;
  const int32_t* expert_offsets;
  float* out;
  int64_t ld_out;
  int64_t n, k;
  int32_t bits;
  int32_t panels_per_chunk;
};

// x [m, k] -> workspace, rows quantized_row_bytes apart. A chunk is kQuantizeRows rows.
struct QuantizeActivationsArgs {
  const float* x;
  int64_t ld_x;
  int64_t m, k;
  int32_t bits;
};
constexpr int64_t kQuantizeRows = 4;
// Behind the last row a product may read as many more, whatever they are: tiles of 16 rows are read whole.
constexpr int64_t kQuantizedRowsBeyond = 15;

// source [rows, cols] of a float type -> panels, row i becoming output feature n_offset + i. A chunk is kQuantizeWeightRows rows.
struct QuantizeWeightArgs {
  const void* source;
  int64_t ld;
  int64_t rows, cols;
  int32_t source_dtype;
  int32_t bits;
  uint32_t* destination;
  int64_t n_offset;
};
constexpr int64_t kQuantizeWeightRows = 32;

// The same to 8-bit floats, destination being their panels. Numbers that are 8-bit floats already (source_dtype kFp8E4M3) stay what
// they are, and `scales` [rows, groups of k] are theirs.
struct Fp8WeightArgs {
  const void* source;
  int64_t ld;
  int64_t rows, cols;
  int32_t source_dtype;
  const float* scales;
  char* destination;
  int64_t n_offset;
};

}  // namespace bao
