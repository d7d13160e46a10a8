// Products with packed weights of any type, for the ops that have them.
#pragma once

#include "kernels.h"
#include "stream.h"

namespace bao {

// Rows of x that share a pass over a part of the weights, about: so few that they stay in the second-level cache meanwhile.
constexpr int64_t kRowsPerPiece = 96;

// How `panels` panels are shared out, each of which is computed in `row_pieces` parts. Of a product that reads its weights once, three quarters
// are one large piece for each thread, and the rest small ones; of others all pieces are even, of `most` panels at most.
PanelPieces panel_pieces(const Stream& stream, int64_t panels, int64_t row_pieces, int64_t most, int64_t panel_bytes, int64_t at_once);

// How many of `panels` panels, each of which is computed in `row_pieces` parts, make a piece, `most` at most: so few that the last
// piece is a small part of the work; `at_once`, which a tile takes, or a multiple of it.
int32_t panels_per_piece(const Stream& stream, int64_t panels, int64_t row_pieces, int64_t most, int64_t at_once);

// As the ops linear and grouped_linear in src/device/ops.ts; w_dtype may also be kFp8E4M3 (see quant.h).
int32_t enqueue_linear(void* handle, const float* x, int64_t ld_x, const void* w, int32_t w_dtype, const float* bias, float* out,
                       int64_t ld_out, int32_t m, int32_t n, int32_t k);
int32_t enqueue_grouped_linear(void* handle, const float* x, int64_t ld_x, const void* const* weights, int32_t w_dtype,
                               const float* biases, const int32_t* expert_offsets, int32_t num_experts, float* out, int64_t ld_out,
                               int32_t rows, int32_t n, int32_t k);

}  // namespace bao
