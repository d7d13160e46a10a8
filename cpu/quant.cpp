// Products with quantized weights, and the quantization of weights.
#include "quant.h"

#include <algorithm>

#include "linear.h"

using namespace bao;

namespace {

// Up to that many rows, each chunk quantizes all of them for itself: cheaper than a task that all threads must wait for.
constexpr int64_t kPrivateRows = 4;

// Panels of a piece at most: measured at 512 rows, where longer pieces were slower.
constexpr int64_t kMaxPiecePanels = 96 / kQuantPanelColumns;

int32_t enqueue_product(Stream& stream, QuantizedLinearArgs args) {
  const int64_t panel_bytes = quant_column_words(args.k, args.bits) * kQuantPanelColumns * 4;
  const int64_t panels = ceil_div(args.n, kQuantPanelColumns);
  const int64_t row_pieces = ceil_div(args.m, args.rows_per_piece);
  const int64_t tile_rows = stream.kernels().quantized_tile_rows(args.bits, args.rows_per_piece);
  const int64_t at_once = stream.kernels().quantized_tile_panels(tile_rows);
  args.pieces = panel_pieces(stream, panels, row_pieces, kMaxPiecePanels, panel_bytes, at_once);
  const int64_t pieces = row_pieces * args.pieces.count(panels);
  // Many rows compute longer than the weights take to come.
  const StreamedInput weights = row_pieces == 1 ? StreamedInput{args.w, args.pieces.large * panel_bytes} : StreamedInput{};
  return stream.enqueue(stream.kernels().quantized_linear, args, std::min<int64_t>(pieces, stream.num_threads()), weights);
}

}  // namespace

BAO_EXPORT int32_t bao_quantized_linear(void* handle, const float* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                        const float* bias, float* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  if (!is_quantization(scheme)) return kBadDType;
  if (scheme == kQuantFp8) return enqueue_linear(handle, x, ld_x, w, kFp8E4M3, bias, out, ld_out, m, n, k);
  const int32_t bits = integer_bits(scheme);
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (m < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (m == 0) return kOk;
  if (!x || !w || !out) return kNullPointer;

  const KernelTable& kernels = stream->kernels();
  const size_t bytes = static_cast<size_t>((m + kQuantizedRowsBeyond) * kernels.quantized_row_bytes(k, bits));
  QuantizedLinearArgs args{x, ld_x, w, bias, out, ld_out, m, n, k, bits, m > kPrivateRows, m, {}};
  if (args.shared) {
    if (const int32_t error = stream->reserve(0, bytes)) return error;
    const QuantizeActivationsArgs quantize{x, ld_x, m, k, bits};
    if (const int32_t error = stream->enqueue(kernels.quantize_activations, quantize, ceil_div(m, kQuantizeRows))) return error;
    args.rows_per_piece = static_cast<int32_t>(std::min<int64_t>(m, kQuantizedRows));
  } else if (const int32_t error = stream->reserve(bytes, 0)) {
    return error;
  }
  return enqueue_product(*stream, args);
}

// Activations are float32 here.
BAO_EXPORT int32_t bao_quantized_linear_f32(void* handle, const float* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                            const float* bias, float* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  return bao_quantized_linear(handle, x, ld_x, w, scheme, bias, out, ld_out, m, n, k);
}

BAO_EXPORT int32_t bao_quantized_grouped_linear(void* handle, const float* x, int64_t ld_x, const uint32_t* const* weights, int32_t scheme,
                                                const float* biases, const int32_t* expert_offsets, int32_t num_experts, float* out,
                                                int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  if (!is_quantization(scheme)) return kBadDType;
  if (scheme == kQuantFp8) {
    const auto* panels = reinterpret_cast<const void* const*>(weights);
    return enqueue_grouped_linear(handle, x, ld_x, panels, kFp8E4M3, biases, expert_offsets, num_experts, out, ld_out, rows, n, k);
  }
  const int32_t bits = integer_bits(scheme);
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || num_experts <= 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weights || !expert_offsets || !out) return kNullPointer;

  const KernelTable& kernels = stream->kernels();
  const size_t bytes = static_cast<size_t>((rows + kQuantizedRowsBeyond) * kernels.quantized_row_bytes(k, bits));
  if (const int32_t error = stream->reserve(0, bytes)) return error;
  const QuantizeActivationsArgs quantize{x, ld_x, rows, k, bits};
  if (const int32_t error = stream->enqueue(kernels.quantize_activations, quantize, ceil_div(rows, kQuantizeRows))) return error;
  const int64_t panels = ceil_div(n, kQuantPanelColumns);
  const int64_t busy_panels = panels * std::min(rows, num_experts);
  const int32_t per_chunk = panels_per_piece(*stream, busy_panels, 1, kMaxPiecePanels, kernels.quantized_tile_panels(1));
  const QuantizedGroupedLinearArgs args{weights, biases, expert_offsets, out, ld_out, n, k, bits, per_chunk};
  return stream->enqueue(kernels.quantized_grouped_linear, args, num_experts * ceil_div(panels, per_chunk));
}

// Bytes of a quantized weight, or -1 for a shape or scheme that there is none of.
BAO_EXPORT int64_t bao_quantized_linear_bytes(int32_t n, int32_t k, int32_t scheme) {
  if (n <= 0 || k <= 0 || !is_quantization(scheme)) return -1;
  if (scheme == kQuantFp8) return round_up(n, kFp8PanelColumns) * fp8_column_bytes(k);
  return round_up(n, kQuantPanelColumns) * quant_column_words(k, integer_bits(scheme)) * 4;
}

// Enqueues the quantization of source [rows, cols] (rows ld apart) as output features n_offset to n_offset + rows of a weight with
// cols input features. The destination, bao_quantized_linear_bytes, starts zero-filled; the source is read when the task runs.
BAO_EXPORT int32_t bao_quantize_linear(void* handle, const void* source, int32_t source_dtype, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination, int32_t scheme) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (!is_float_dtype(source_dtype) || !is_quantization(scheme)) return kBadDType;
  if (rows == 0) return kOk;
  if (!source || !destination) return kNullPointer;
  if (scheme == kQuantFp8) {
    const Fp8WeightArgs args{source, ld, rows, cols, source_dtype, nullptr, static_cast<char*>(destination), n_offset};
    return stream->enqueue(stream->kernels().quantize_fp8_weight, args, ceil_div(rows, kQuantizeWeightRows));
  }
  const QuantizeWeightArgs args{source,   ld, rows, cols, source_dtype, integer_bits(scheme), static_cast<uint32_t*>(destination),
                                n_offset};
  return stream->enqueue(stream->kernels().quantize_weight, args, ceil_div(rows, kQuantizeWeightRows));
}

// The same for a source of 8-bit floats with scales [rows, groups of kFp8Group columns], which stay what they are.
BAO_EXPORT int32_t bao_pack_fp8_linear(void* handle, const uint8_t* source, const float* scales, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (rows == 0) return kOk;
  if (!source || !scales || !destination) return kNullPointer;
  const Fp8WeightArgs args{source, ld, rows, cols, kFp8E4M3, scales, static_cast<char*>(destination), n_offset};
  return stream->enqueue(stream->kernels().quantize_fp8_weight, args, ceil_div(rows, kQuantizeWeightRows));
}
