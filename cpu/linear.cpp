// Dense products: packing of weights and the linear op.
#include "linear.h"

#include <algorithm>

using namespace bao;

namespace {

// Columns of a piece at most: longer ones would only let threads end further apart.
constexpr int64_t kMaxPieceColumns = 256;
// Weights that stream through a thread go in long runs; those that many rows share are in a cache, and short pieces end together.
constexpr int64_t kStreamedPiecesPerThread = 8, kSharedPiecesPerThread = 32;

// So large that taking a piece costs next to nothing: some microseconds of reading.
constexpr int64_t kSmallPieceBytes = 1 << 15;

// Up to that many rows, and a tile's, each chunk packs all of them for itself: cheaper than a task that all threads must wait for.
constexpr int64_t kPrivateRows = 8;

int32_t enqueue_pack(Stream& stream, const PackActivationsArgs& args) {
  return stream.enqueue(stream.kernels().pack_activations, args, ceil_div(args.m, kPackedRows));
}

// How weights of a type lie, and are taken by `rows` rows.
struct WeightPanels {
  int64_t columns, bytes;
  int64_t tile_rows;
  // So many are taken at once.
  int64_t tile_panels;

  int64_t count(int64_t n) const { return ceil_div(n, columns); }
  int64_t most_per_piece() const { return kMaxPieceColumns / columns; }
};

WeightPanels panels_for(const KernelTable& kernels, int32_t w_dtype, int64_t k, int64_t rows) {
  if (w_dtype == kFp8E4M3) {
    const int64_t tile_rows = kernels.fp8_tile_rows(rows);
    return {kFp8PanelColumns, fp8_column_bytes(k) * kFp8PanelColumns, tile_rows, kernels.fp8_tile_panels(tile_rows)};
  }
  const int64_t tile_rows = kernels.tile_rows(w_dtype, rows);
  return {kPanelColumns, kernels.packed_panel_bytes(k, w_dtype), tile_rows, kernels.tile_panels(w_dtype, tile_rows)};
}

size_t scratch_bytes(int64_t rows, int32_t w_dtype) {
  return static_cast<size_t>(w_dtype == kFp8E4M3 ? fp8_scratch_bytes(rows) : linear_scratch_bytes(rows));
}

// Rows of x in a piece: kRowsPerPiece about, and fewer where the panels alone are too few pieces, but more than one tile.
int32_t rows_per_piece(const Stream& stream, int64_t m, int64_t n, const WeightPanels& panels) {
  const int64_t wanted = ceil_div(stream.num_threads() * kStreamedPiecesPerThread * panels.tile_panels, panels.count(n));
  const int64_t row_pieces = std::max(ceil_div(m, kRowsPerPiece), std::min(wanted, m / (2 * panels.tile_rows)));
  return static_cast<int32_t>(round_up(ceil_div(m, row_pieces), panels.tile_rows));
}

}  // namespace

int32_t bao::panels_per_piece(const Stream& stream, int64_t panels, int64_t row_pieces, int64_t most, int64_t at_once) {
  const int64_t pieces_per_thread = row_pieces == 1 ? kStreamedPiecesPerThread : kSharedPiecesPerThread;
  const int64_t share = std::min(panels * row_pieces / (stream.num_threads() * pieces_per_thread), most);
  return static_cast<int32_t>(std::max<int64_t>(share / at_once, 1) * at_once);
}

PanelPieces bao::panel_pieces(const Stream& stream, int64_t panels, int64_t row_pieces, int64_t most, int64_t panel_bytes,
                              int64_t at_once) {
  const int32_t even = panels_per_piece(stream, panels, row_pieces, most, at_once);
  if (row_pieces > 1) return {0, even, even};
  const int64_t large = std::max<int64_t>(even, panels / stream.num_threads() * 3 / 4 / at_once * at_once);
  const int64_t small = std::clamp<int64_t>(kSmallPieceBytes / panel_bytes / at_once * at_once, at_once, even);
  return {stream.num_threads(), static_cast<int32_t>(large), static_cast<int32_t>(small)};
}

int32_t bao::enqueue_linear(void* handle, const float* x, int64_t ld_x, const void* w, int32_t w_dtype, const float* bias, float* out,
                            int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (m < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (m == 0) return kOk;
  if (!x || !w || !out) return kNullPointer;

  const KernelTable& kernels = stream->kernels();
  const WeightPanels panels = panels_for(kernels, w_dtype, k, m);
  const int64_t row_bytes = kernels.packed_row_bytes(k, w_dtype);
  const bool shared = m > std::min(kPrivateRows, panels.tile_rows);
  LinearArgs args{x, ld_x, w, bias, out, ld_out, m, n, k, panels.tile_rows, w_dtype, shared, rows_per_piece(*stream, m, n, panels), {}};
  const int64_t row_pieces = ceil_div(m, args.rows_per_piece);
  args.pieces = panel_pieces(*stream, panels.count(n), row_pieces, panels.most_per_piece(), panels.bytes, panels.tile_panels);
  const size_t packed = static_cast<size_t>(m * row_bytes), sums = scratch_bytes(args.rows_per_piece, w_dtype);
  if (const int32_t error = stream->reserve(shared ? sums : std::max(sums, packed), shared ? packed : 0)) return error;
  if (shared && packed > 0) {
    if (const int32_t error = enqueue_pack(*stream, {x, ld_x, m, k, w_dtype})) return error;
  }
  const auto kernel = w_dtype == kFp8E4M3 ? kernels.fp8_linear : kernels.linear;
  const int64_t pieces = row_pieces * args.pieces.count(panels.count(n));
  // Many rows compute longer than the weights take to come.
  const StreamedInput weights = row_pieces == 1 ? StreamedInput{w, args.pieces.large * panels.bytes} : StreamedInput{};
  return stream->enqueue(kernel, args, std::min<int64_t>(pieces, stream->num_threads()), weights);
}

int32_t bao::enqueue_grouped_linear(void* handle, const float* x, int64_t ld_x, const void* const* weights, int32_t w_dtype,
                                    const float* biases, const int32_t* expert_offsets, int32_t num_experts, float* out,
                                    int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || num_experts <= 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n) return kBadShape;
  if (rows == 0) return kOk;
  if (!x || !weights || !expert_offsets || !out) return kNullPointer;

  const KernelTable& kernels = stream->kernels();
  // As if each row had an expert of its own: which have more is not known yet.
  const WeightPanels panels = panels_for(kernels, w_dtype, k, 1);
  const int64_t busy_experts = std::min(rows, num_experts);
  const int32_t per_chunk = panels_per_piece(*stream, panels.count(n) * busy_experts, 1, panels.most_per_piece(), panels.tile_panels);
  const GroupedLinearArgs args{x, ld_x, weights, biases, expert_offsets, out, ld_out, n, k, w_dtype, num_experts, per_chunk};
  const size_t packed = static_cast<size_t>(rows * kernels.packed_row_bytes(k, w_dtype));
  const int64_t most_rows = kGroupedRows + panels_for(kernels, w_dtype, k, kGroupedRows).tile_rows;
  if (const int32_t error = stream->reserve(scratch_bytes(most_rows, w_dtype), packed)) return error;
  if (packed > 0) {
    if (const int32_t error = enqueue_pack(*stream, {x, ld_x, rows, k, w_dtype})) return error;
  }
  const auto kernel = w_dtype == kFp8E4M3 ? kernels.fp8_grouped_linear : kernels.grouped_linear;
  return stream->enqueue(kernel, args, num_experts * ceil_div(panels.count(n), per_chunk));
}

BAO_EXPORT int32_t bao_linear(void* handle, const float* x, int64_t ld_x, const void* w, int32_t w_dtype, const float* bias,
                              float* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  if (!is_float_dtype(w_dtype)) return kBadDType;
  return enqueue_linear(handle, x, ld_x, w, w_dtype, bias, out, ld_out, m, n, k);
}

// Activations are float32 here, and so are the outputs of `linear`.
BAO_EXPORT int32_t bao_linear_f32(void* handle, const float* x, int64_t ld_x, const void* w, int32_t w_dtype, const float* bias,
                                  float* out, int64_t ld_out, int32_t m, int32_t n, int32_t k) {
  return bao_linear(handle, x, ld_x, w, w_dtype, bias, out, ld_out, m, n, k);
}

BAO_EXPORT int32_t bao_grouped_linear(void* handle, const float* x, int64_t ld_x, const void* const* weights, int32_t w_dtype,
                                      const float* biases, const int32_t* expert_offsets, int32_t num_experts, float* out,
                                      int64_t ld_out, int32_t rows, int32_t n, int32_t k) {
  if (!is_float_dtype(w_dtype)) return kBadDType;
  return enqueue_grouped_linear(handle, x, ld_x, weights, w_dtype, biases, expert_offsets, num_experts, out, ld_out, rows, n, k);
}

// Bytes of a packed weight, or -1 for a shape or type that there is none of.
BAO_EXPORT int64_t bao_packed_linear_bytes(void* handle, int32_t n, int32_t k, int32_t dtype) {
  const Stream* stream = Stream::from(handle);
  if (!stream || n <= 0 || k <= 0 || !is_float_dtype(dtype)) return -1;
  return ceil_div(n, kPanelColumns) * stream->kernels().packed_panel_bytes(k, dtype);
}

// Enqueues the packing of source [rows, cols] (rows ld apart) as output features n_offset to n_offset + rows of a weight with
// cols input features. The destination, bao_packed_linear_bytes, starts zero-filled; the source is read when the task runs.
BAO_EXPORT int32_t bao_pack_linear(void* handle, const void* source, int32_t source_dtype, int32_t rows, int32_t cols, int64_t ld,
                                   int32_t n_offset, void* destination, int32_t dtype) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (rows < 0 || cols <= 0 || n_offset < 0 || ld < cols) return kBadShape;
  if (!is_float_dtype(source_dtype) || !is_float_dtype(dtype)) return kBadDType;
  if (rows == 0) return kOk;
  if (!source || !destination) return kNullPointer;
  const ConvertArgs args{source, ld, rows, cols, source_dtype, dtype, destination, n_offset};
  return stream->enqueue(stream->kernels().pack_linear, args, ceil_div(rows, kConvertRows));
}
