// Weights of 8 or 4 bits on the device, and products with them, for the ops of quant.cu. The arithmetic is the CPU's (cpu/kernels/quant/quant.cpp), bit for
// bit; the layout is row-major, of each output feature
//   the words of its numbers, padded to whole 16 bytes; a word is 4 or 8 consecutive k, 8-bit numbers less 128, which is their zero point
//   a word for each group of k with its scale (bfloat16, upper half) and zero point, padded likewise
#pragma once

#include <type_traits>

#include "../cpu/quant.h"
#include "stream.h"

namespace bao {

static constexpr int64_t quantized_number_words(int64_t k, int32_t bits) { return round_up(ceil_div(k, quant_word(bits)), 4); }
static constexpr int64_t quantized_row_words(int64_t k, int32_t bits) {
  return quantized_number_words(k, bits) + round_up(ceil_div(k, quant_group(bits)), 4);
}

// source [rows, cols] to the output features at `destination`.
int32_t enqueue_quantize_weight(const Stream* stream, const void* source, int32_t source_dtype, int32_t rows, int32_t cols, int64_t ld,
                                uint32_t* destination, int32_t bits);

// Rows of activations as int8 in whole groups of k, which have a scale each: numbers [m, groups, group], scales [m, groups]. Of 4-bit weights the 4-byte
// words of each 32 k come in the order of their fragments: those of the words' low halves (k 0..3, 8..11, …), then those of the high ones.
struct QuantizedRows {
  const uint32_t* numbers;
  const float* scales;
};

int64_t quantized_rows_bytes(int64_t m, int64_t k, int32_t bits);
// x [m, k], rows ld_x apart, quantized in the stream's workspace, which has quantized_rows_bytes.
int32_t enqueue_quantize_rows(const Stream* stream, const void* x, int64_t ld_x, int32_t m, int32_t k, int32_t bits, QuantizedRows& rows);

// Rows of x times one weight, or, where num_experts > 0, those of each expert times the expert's.
struct QuantizedProduct {
  QuantizedRows x;
  const uint32_t* weight;
  const int64_t* weights;
  const float* biases;
  const int32_t* expert_offsets;
  void* out;
  // Else of the activation type.
  bool float_out;
  int64_t ld_out;
  int32_t num_experts, m, n, k, bits;
};

// What kernels get of it beside pointers.
struct QuantizedShape {
  explicit QuantizedShape(const QuantizedProduct& p)
      : ld_out(p.ld_out), num_experts(p.num_experts), m(p.m), n(p.n), k(p.k), groups(static_cast<int32_t>(ceil_div(p.k, quant_group(p.bits)))) {}
  int64_t ld_out;
  int32_t num_experts, m, n, k, groups;
};

// Each output feature is read once for every four rows, by lanes that multiply bytes (dp4a).
constexpr int32_t kFewRows = 4;
int32_t enqueue_quantized_few_rows(const Stream* stream, const QuantizedProduct& product);
// On tensor cores, by tiles.
int32_t enqueue_quantized_tiles(const Stream* stream, const QuantizedProduct& product);

template <class F>
int32_t with_bits(int32_t bits, F f) {
  return bits == 8 ? f(std::integral_constant<int, 8>()) : f(std::integral_constant<int, 4>());
}

// Calls f with a null pointer of the type of `out`, and the bits.
template <class F>
int32_t with_output(const Stream* stream, const QuantizedProduct& product, F f) {
  return with_dtype(product.float_out ? static_cast<int32_t>(kFloat32) : stream->activation,
                    [&](auto* type) { return with_bits(product.bits, [&](auto bits) { return f(type, bits); }); });
}

}  // namespace bao
