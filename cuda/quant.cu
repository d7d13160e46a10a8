// The ops of quantized weights: what they are called with is looked at here, and which kernel takes a product is chosen.
#include "fp8_linear.h"
#include "quantized.h"

namespace bao {
namespace {

// Up to so many rows an expert, on average, are few: most experts then have no more than kFewRows. Neither number has been measured.
constexpr int32_t kFewRowsOfExpert = 2;

int32_t enqueue_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, QuantizedProduct product) {
  const int32_t code = enqueue_quantize_rows(stream, x, ld_x, product.m, product.k, product.bits, product.x);
  if (code != kOk) return code;
  // Whichever it is, the bits are the same.
  const int64_t few = product.num_experts > 0 ? int64_t{kFewRowsOfExpert} * product.num_experts : kFewRows;
  return product.m <= few ? enqueue_quantized_few_rows(stream, product) : enqueue_quantized_tiles(stream, product);
}

}  // namespace
}  // namespace bao

using namespace bao;

// Bytes of workspace that a product with m rows needs of the stream.
BAO_EXPORT int64_t bao_quantized_linear_workspace_bytes(int32_t m, int32_t k, int32_t scheme) {
  if (!is_quantization(scheme) || scheme == kQuantFp8) return 0;
  return quantized_rows_bytes(m, k, integer_bits(scheme));
}

// Bytes of a quantized weight, or -1 for a shape or scheme that there is none of.
BAO_EXPORT int64_t bao_quantized_linear_bytes(int32_t n, int32_t k, int32_t scheme) {
  if (n <= 0 || k <= 0 || !is_quantization(scheme)) return -1;
  return n * (scheme == kQuantFp8 ? fp8_row_bytes(k) : quantized_row_words(k, integer_bits(scheme)) * 4);
}

// Enqueues the quantization of source [rows, cols] (rows ld apart, on the device) as output features n_offset to n_offset + rows.
BAO_EXPORT int32_t bao_quantize_linear(const Stream* stream, const void* source, int32_t source_dtype, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination, int32_t scheme) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (!is_float_dtype(source_dtype) || !is_quantization(scheme)) return kBadDType;
  if (rows == 0) return kOk;
  if (!source || !destination) return kNullPointer;
  if (scheme == kQuantFp8) {
    char* to = static_cast<char*>(destination) + n_offset * fp8_row_bytes(cols);
    return enqueue_fp8_weight(stream, source, source_dtype, nullptr, rows, cols, ld, to);
  }
  const int32_t bits = integer_bits(scheme);
  uint32_t* to = static_cast<uint32_t*>(destination) + n_offset * quantized_row_words(cols, bits);
  return enqueue_quantize_weight(stream, source, source_dtype, rows, cols, ld, to, bits);
}

// The same for 8-bit floats with scales [rows, groups of kFp8Group columns], which stay what they are.
BAO_EXPORT int32_t bao_pack_fp8_linear(const Stream* stream, const void* source, const float* scales, int32_t rows, int32_t cols,
                                       int64_t ld, int32_t n_offset, void* destination) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (rows == 0) return kOk;
  if (!source || !scales || !destination) return kNullPointer;
  char* to = static_cast<char*>(destination) + n_offset * fp8_row_bytes(cols);
  return enqueue_fp8_weight(stream, source, kFp8E4M3, scales, rows, cols, ld, to);
}

namespace {

int32_t check_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme, void* out,
                               int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (m < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (!is_quantization(scheme)) return kBadDType;
  if (m > 0 && (!x || !w || !out)) return kNullPointer;
  return m > 0 && stream->workspace_bytes < bao_quantized_linear_workspace_bytes(m, k, scheme) ? kOutOfMemory : kOk;
}

}  // namespace

BAO_EXPORT int32_t bao_quantized_linear(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                        const float* bias, void* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  const int32_t code = check_quantized_linear(stream, x, ld_x, w, scheme, out, ld_out, m, n, k);
  if (code != kOk || m == 0) return code;
  if (scheme == kQuantFp8) return enqueue_fp8_linear(stream, x, ld_x, w, bias, out, ld_out, false, m, n, k);
  return enqueue_quantized_linear(stream, x, ld_x,
                                  {{}, w, nullptr, bias, nullptr, out, false, ld_out, 0, m, n, k, integer_bits(scheme)});
}

BAO_EXPORT int32_t bao_quantized_linear_f32(const Stream* stream, const void* x, int64_t ld_x, const uint32_t* w, int32_t scheme,
                                            const float* bias, void* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  const int32_t code = check_quantized_linear(stream, x, ld_x, w, scheme, out, ld_out, m, n, k);
  if (code != kOk || m == 0) return code;
  if (scheme == kQuantFp8) return enqueue_fp8_linear(stream, x, ld_x, w, bias, out, ld_out, true, m, n, k);
  return enqueue_quantized_linear(stream, x, ld_x, {{}, w, nullptr, bias, nullptr, out, true, ld_out, 0, m, n, k, integer_bits(scheme)});
}

BAO_EXPORT int32_t bao_quantized_grouped_linear(const Stream* stream, const void* x, int64_t ld_x, const int64_t* weights, int32_t scheme,
                                                const float* biases, const int32_t* expert_offsets, int32_t num_experts, void* out,
                                                int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || num_experts <= 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (!is_quantization(scheme)) return kBadDType;
  if (rows == 0) return kOk;
  if (!x || !weights || !expert_offsets || !out) return kNullPointer;
  if (stream->workspace_bytes < bao_quantized_linear_workspace_bytes(rows, k, scheme)) return kOutOfMemory;
  if (scheme == kQuantFp8) {
    return enqueue_fp8_grouped_linear(stream, x, ld_x, weights, biases, expert_offsets, num_experts, out, ld_out, rows, n, k);
  }
  return enqueue_quantized_linear(stream, x, ld_x,
                                  {{}, nullptr, weights, biases, expert_offsets, out, false, ld_out, num_experts, rows, n, k,
                                   integer_bits(scheme)});
}
