// Products with weights of 8-bit floats, for the ops of quant.cu. A weight is a number times its group's scale (cpu/quant.h).
#pragma once

#include "../cpu/quant.h"
#include "stream.h"

namespace bao {

// Of each output feature the numbers, padded to whole 16 bytes, then the scales (float32), padded likewise.
static constexpr int64_t fp8_numbers_bytes(int64_t k) { return round_up(k, 16); }
static constexpr int64_t fp8_row_bytes(int64_t k) { return fp8_numbers_bytes(k) + round_up(ceil_div(k, kFp8Group) * 4, 16); }

// As the ops quantized_linear, quantized_linear_f32 (`float_out`) and quantized_grouped_linear, whose arguments were looked at.
int32_t enqueue_fp8_linear(const Stream* stream, const void* x, int64_t ld_x, const void* w, const float* bias, void* out,
                           int64_t ld_out, bool float_out, int32_t m, int32_t n, int32_t k);
int32_t enqueue_fp8_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, const float* biases,
                                   const int32_t* expert_offsets, int32_t num_experts, void* out, int64_t ld_out, int32_t rows,
                                   int32_t n, int32_t k);

// source [rows, cols] to the rows at `destination`. Scales [rows, groups] where the source has 8-bit floats (kFp8E4M3), else nullptr.
int32_t enqueue_fp8_weight(const Stream* stream, const void* source, int32_t source_dtype, const float* scales, int32_t rows,
                           int32_t cols, int64_t ld, void* destination);

}  // namespace bao
