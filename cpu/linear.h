// Products with packed weights of any type, for the ops that have them.
#pragma once

#include "kernels.h"
#include "stream.h"

namespace bao {

// As the ops linear and grouped_linear in src/device/ops.ts; w_dtype may also be kFp8E4M3 (see quant.h).
int32_t enqueue_linear(void* handle, const float* x, int64_t ld_x, const void* w, int32_t w_dtype, const float* bias, float* out,
                       int64_t ld_out, int32_t m, int32_t n, int32_t k);
int32_t enqueue_grouped_linear(void* handle, const float* x, int64_t ld_x, const void* const* weights, int32_t w_dtype,
                               const float* biases, const int32_t* expert_offsets, int32_t num_experts, float* out, int64_t ld_out,
                               int32_t rows, int32_t n, int32_t k);

}  // namespace bao
