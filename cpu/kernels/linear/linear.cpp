// out = x · Wᵀ + bias over packed panels.
//
// Every output is one chain of fused multiply-adds over k = 0, 1, 2, ... (pairs of k with VDPBF16PS, kHalfSteps pairs of k added as halves
// first with scaled halves, 32 k with matrix registers, groups of k with 8-bit floats), whatever the tile's shape, the blocking of k or the number of rows: partial sums between blocks of k are
// kept as float32, which changes nothing. So a row's result is the same in every batch.
#include "fp8_matrix.h"

namespace bao::BAO_ISA {
namespace {

// Bytes of a block that several row tiles share: it stays in the first-level cache while they pass over it. Tiles of matrix registers have
// the second-level cache's; storing their sums and loading them again between blocks costs more than that.
template <class P>
constexpr int64_t kBlockBytes = uses_matrices<P> ? 128 << 10 : 24 << 10;

// Floats of a packed row of x: a pair of bfloat16 or halves in each, then what its products are to be multiplied by.
constexpr int64_t packed_row_floats(int64_t k) { return round_up(ceil_div(k, 2) + 1, 16); }

template <class P>
BAO_INLINE void pack_row(const float* x, int64_t k, float* packed) {
  const int64_t pairs = ceil_div(k, 2);
  // Of an odd k, or up to a whole row of a matrix register.
  const int64_t filled = uses_matrices<P> ? ceil_div(k, kMatrixDepth) * kMatrixDepth / 2 : pairs;
  for (int64_t i = k / 2; i < filled; i++) packed[i] = 0;
  if constexpr (uses_halves<P>) {
    const Scale scale = scale_for<kRowExponent>(greatest_magnitude(x, k));
    convert_row(x, scale.to_half, reinterpret_cast<Float16*>(packed), k);
    packed[pairs] = scale.from_half;
  } else {
    convert_row(x, reinterpret_cast<BFloat16*>(packed), k);
  }
}

// Rows of x as tiles take them: in place, or packed.
template <class P>
struct Activations {
  const float* data;
  int64_t row_stride;

  Rows at(int64_t row, int64_t k0) const {
    return {data + row * row_stride + (takes_pairs<P> ? k0 / 2 : k0), row_stride};
  }
};
template <class P>
BAO_INLINE Activations<P> activations(const float* x, int64_t ld_x, int64_t k, const void* packed) {
  if constexpr (takes_pairs<P>) return {static_cast<const float*>(packed), packed_row_floats(k)};
  return {x, ld_x};
}

template <class P>
BAO_INLINE Panels weight_panels(const void* w, int64_t k, int64_t begin, int64_t end) {
  return {static_cast<const char*>(w) + begin * panel_bytes<P>(k), panel_bytes<P>(k), end - begin};
}

// Of a row and a panel on.
template <class P>
BAO_INLINE SumScales sum_scales(const LinearArgs& a, const Activations<P>& x, int64_t row, int64_t panel) {
  if constexpr (!uses_halves<P>) return {};
  const char* numbers_end = static_cast<const char*>(a.w) + panel * panel_bytes<P>(a.k) + panel_number_bytes<P>(a.k);
  const char* columns = std::is_same_v<P, ScaledHalf> ? numbers_end : nullptr;
  return {x.at(row, round_up(a.k, 2)).a, x.row_stride, columns, panel_bytes<P>(a.k)};
}

// Rows of a tile where there are `rows` in all, and panels that a tile of so many takes at once.
template <class P>
constexpr int64_t tile_rows_for(int64_t rows) {
  return uses_matrices<P> ? matrix_tile_rows(rows) : balanced_tile_rows(rows, kTileRows);
}
template <class P>
constexpr int64_t tile_panels_for(int64_t tile_rows) {
  if (widens_to_matrices<P>) return fp8_matrix_panels(tile_rows);
  return uses_matrices<P> ? matrix_tile_panels(tile_rows) : tile_panels(tile_rows);
}

// `k` k of some panels by the rows of one tile, or of 8-bit floats that become bfloat16 first by all rows.
template <class P, class Source>
BAO_INLINE void tile_of_rows(MatrixRegisters& registers, int64_t count, const Rows& rows, const Panels& w, int64_t k,
                             const Source& source, const Sums& sums) {
#if defined(__AMX_BF16__)
  if constexpr (widens_to_matrices<P>) {
    fp8_matrix_tiles(registers, count, rows, w, k, source.last, sums);
  } else if constexpr (uses_matrices<P>) {
    matrix_rows(registers, count, rows, w, k, source, sums);
  } else
#endif
  {
    static_cast<void>(registers);
    panel_rows<kTileRows, P>(count, rows, w, k, source, sums);
  }
}

// Some panels of a matrix by several tiles of rows, which pass together over one block of weights after another: as many panels
// as a tile takes at once, over some k.
template <class P>
class Blocks {
 public:
  Blocks(MatrixRegisters& registers, const LinearArgs& a, const Activations<P>& x, int64_t row_begin, int64_t row_end,
         int64_t panel_begin, int64_t panel_end, void* scratch)
      : registers_(registers),
        a_(a),
        x_(x),
        row_begin_(row_begin),
        rows_(row_end - row_begin),
        panel_begin_(panel_begin),
        panels_(weight_panels<P>(a.w, a.k, panel_begin, panel_end)),
        at_once_(tile_panels_for<P>(a.tile_rows)),
        depth_(round_up(ceil_div(a.k, ceil_div(a.k * at_once_ * kColumnBytes, kBlockBytes<P>)), kWholeDepth)),
        tile_lines_(ceil_div(depth_ * kColumnBytes / 64, ceil_div(rows_, a.tile_rows))),
        period_(ceil_div(steps_of<P>(depth_) / kRound<P>, tile_lines_)),
        step_lines_(ceil_div(tile_lines_, ceil_div(depth_, kMatrixDepth))),
        partial_(static_cast<float*>(scratch)) {}

  void multiply(NextWeights last) const {
    for (int64_t panel = 0; panel < panels_.count; panel += at_once_) {
      for (int64_t k0 = 0; k0 < a_.k; k0 += depth_) {
        const char* next = block(panel, k0 + depth_).data;
        if (k0 + depth_ >= a_.k) next = panel + at_once_ < panels_.count ? panels_[panel + at_once_] : last.claim(last.self);
        multiply_block(panel, k0, next ? next : block(panel, k0).data);
      }
    }
  }

 private:
  // Bytes of a k of a panel, nearly.
  static constexpr int64_t kColumnBytes = panel_columns<P> * static_cast<int64_t>(sizeof(P));
  // k of a block are whole rounds, or whole sums of halves.
  static constexpr int64_t kWholeDepth = std::is_same_v<P, Float8E4M3> ? kFp8Group
                                         : uses_halves<P>              ? 2 * kHalfSteps
                                         : uses_matrices<P>            ? kMatrixDepth
                                                                       : kAllRounds;

  Panels block(int64_t panel, int64_t k0) const {
    return {panels_[panel] + panel_number_bytes<P>(k0), panels_.stride, min(at_once_, panels_.count - panel)};
  }

  // All rows by one block; meanwhile each tile asks for its share of the next one.
  void multiply_block(int64_t panel, int64_t k0, const char* next) const {
    const Panels weights = block(panel, k0);
    const int64_t depth = min(depth_, a_.k - k0);
    for (int64_t row = 0; row < rows_; row += a_.tile_rows, next += tile_lines_ * 64) {
      const int64_t count = min(a_.tile_rows, rows_ - row);
      const Shared source{next, panels_.stride, period_, step_lines_};
      tile_of_rows<P>(registers_, count, x_.at(row_begin_ + row, k0), weights, depth, source, sums(row, panel, k0));
    }
  }

  // Sums between blocks of k lie densely: rows of `out` are far apart, at distances that fall on few sets of a cache.
  Sums sums(int64_t row, int64_t panel, int64_t k0) const {
    const int64_t column = (panel_begin_ + panel) * panel_columns<P>;
    const int64_t ld = at_once_ * panel_columns<P>;
    float* partial = partial_ + row * ld;
    const float* from = k0 == 0 ? nullptr : partial;
    if (k0 + depth_ < a_.k) return {from, ld, partial, ld, nullptr, ld};
    float* out = a_.out + (row_begin_ + row) * a_.ld_out + column;
    const SumScales scales = sum_scales(a_, x_, row_begin_ + row, panel_begin_ + panel);
    return {from, ld, out, a_.ld_out, a_.bias ? a_.bias + column : nullptr, a_.n - column, scales};
  }

  MatrixRegisters& registers_;
  const LinearArgs& a_;
  Activations<P> x_;
  int64_t row_begin_, rows_, panel_begin_;
  Panels panels_;
  int64_t at_once_, depth_;
  // Lines of the next block that a tile asks for in each panel: one every `period_` rounds.
  int64_t tile_lines_, period_;
  // Of matrix tiles: lines in a step.
  int64_t step_lines_;
  float* partial_;
};

// Panels [panel_begin, panel_end) for rows [row_begin, row_end).
// `claim_next()` is called once, towards the end: where the weights begin that this thread takes next, or nullptr.
template <class P, class ClaimNext>
static void multiply_panels(MatrixRegisters& registers, const LinearArgs& a, const Activations<P>& x, int64_t row_begin, int64_t row_end,
                            int64_t panel_begin, int64_t panel_end, void* scratch, ClaimNext claim_next) {
  const NextWeights next = next_weights(claim_next);
  const int64_t count = row_end - row_begin;
  if constexpr (!widens_to_matrices<P>) {
    if (count > a.tile_rows) {
      return Blocks<P>(registers, a, x, row_begin, row_end, panel_begin, panel_end, scratch).multiply(next);
    }
  }
  const int64_t column = panel_begin * panel_columns<P>;
  const Sums sums{nullptr, 0, a.out + row_begin * a.ld_out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column,
                  sum_scales(a, x, row_begin, panel_begin)};
  const Panels panels = weight_panels<P>(a.w, a.k, panel_begin, panel_end);
  tile_of_rows<P>(registers, count, x.at(row_begin, 0), panels, a.k, PanelStream{next}, sums);
}

template <class P>
static void pack_rows(const float* x, int64_t ld_x, int64_t rows, int64_t k, void* packed) {
  for (int64_t r = 0; r < rows; r++) pack_row<P>(x + r * ld_x, k, static_cast<float*>(packed) + r * packed_row_floats(k));
}

template <class P>
static void linear_panels(const LinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, panel_columns<P>);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  if constexpr (takes_pairs<P>) {
    if (!a.shared) pack_rows<P>(a.x, a.ld_x, a.m, a.k, c.scratch);
  }
  const Activations<P> x = activations<P>(a.x, a.ld_x, a.k, a.shared ? c.workspace : c.scratch);
  MatrixRegisters registers;
  for_each_piece(c, row_blocks * a.pieces.count(panels), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = a.pieces.first_panel(piece / row_blocks);
    const int64_t panel_end = min(panels, a.pieces.first_panel(piece / row_blocks + 1));
    multiply_panels<P>(registers, a, x, row_begin, row_end, panel_begin, panel_end, c.scratch, [&]() -> const char* {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : weight_panels<P>(a.w, a.k, a.pieces.first_panel(next / row_blocks), panels).data;
    });
  });
}

template <class P>
static void grouped_panels(const GroupedLinearArgs& a, const ChunkContext& c, int64_t expert, int64_t panel_begin,
                           int64_t panel_end) {
  const int64_t row = a.expert_offsets[expert];
  const int64_t count = a.expert_offsets[expert + 1] - row;
  if (count == 0) return;
  const int64_t tile_rows = tile_rows_for<P>(count);
  const LinearArgs part{a.x, a.ld_x, a.weights[expert], a.biases ? a.biases + expert * a.n : nullptr,
                        a.out, a.ld_out, row + count, a.n, a.k, tile_rows, a.w_dtype, true, 0, {}};
  const Activations<P> x = activations<P>(a.x, a.ld_x, a.k, c.workspace);
  const int64_t rows_at_once = round_up(kGroupedRows, tile_rows);
  MatrixRegisters registers;
  for (int64_t begin = row; begin < row + count; begin += rows_at_once) {
    const int64_t end = min(row + count, begin + rows_at_once);
    const auto none = []() -> const char* { return nullptr; };
    multiply_panels<P>(registers, part, x, begin, end, panel_begin, panel_end, c.scratch, none);
  }
}

}  // namespace

// Calls f with a null pointer of the type that numbers of a packed weight have.
template <class Fn>
BAO_INLINE void with_packed_type(int32_t w_dtype, Fn f) {
#if defined(__AVX512FP16__)
  if (w_dtype == kFp8E4M3) return f(static_cast<Float8E4M3*>(nullptr));
#endif
  with_dtype(w_dtype, [&](auto* type) { f(static_cast<PackedType<std::remove_pointer_t<decltype(type)>>*>(nullptr)); });
}

static void linear(const LinearArgs& a, const ChunkContext& c) {
  with_packed_type(a.w_dtype, [&](auto* type) { linear_panels<std::remove_pointer_t<decltype(type)>>(a, c); });
}

static void grouped_linear(const GroupedLinearArgs& a, const ChunkContext& c) {
  with_packed_type(a.w_dtype, [&](auto* type) {
    using P = std::remove_pointer_t<decltype(type)>;
    const int64_t panels = ceil_div(a.n, panel_columns<P>);
    const int64_t panel_chunks = ceil_div(panels, a.panels_per_chunk);
    const int64_t panel_begin = c.chunk % panel_chunks * a.panels_per_chunk;
    const int64_t panel_end = min(panels, panel_begin + a.panels_per_chunk);
    grouped_panels<P>(a, c, c.chunk / panel_chunks, panel_begin, panel_end);
  });
}

static void pack_activations(const PackActivationsArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * kPackedRows;
  const int64_t rows = min(kPackedRows, a.m - begin);
  with_packed_type(a.w_dtype, [&](auto* type) {
    using P = std::remove_pointer_t<decltype(type)>;
    float* packed = static_cast<float*>(c.workspace) + begin * packed_row_floats(a.k);
    if constexpr (takes_pairs<P>) pack_rows<P>(a.x + begin * a.ld_x, a.ld_x, rows, a.k, packed);
  });
}

static int64_t packed_row_bytes(int64_t k, int32_t w_dtype) {
  bool pairs = false;
  with_packed_type(w_dtype, [&](auto* type) { pairs = takes_pairs<std::remove_pointer_t<decltype(type)>>; });
  return pairs ? packed_row_floats(k) * 4 : 0;
}

static int64_t tile_rows_of(int32_t w_dtype, int64_t rows) {
  int64_t tile_rows = 0;
  with_packed_type(w_dtype, [&](auto* type) { tile_rows = tile_rows_for<std::remove_pointer_t<decltype(type)>>(rows); });
  return tile_rows;
}

static int64_t tile_panels_of(int32_t w_dtype, int64_t tile_rows) {
  int64_t panels = 0;
  with_packed_type(w_dtype, [&](auto* type) { panels = tile_panels_for<std::remove_pointer_t<decltype(type)>>(tile_rows); });
  return panels;
}

void use_linear(KernelTable& table) {
  table.tile_rows = tile_rows_of;
  table.tile_panels = tile_panels_of;
  table.packed_row_bytes = packed_row_bytes;
  table.linear = linear;
  table.grouped_linear = grouped_linear;
  table.pack_activations = pack_activations;
#if defined(__AVX512FP16__)
  // These take the place of what fp8_linear.cpp has for lower sets; weights are the same.
  table.fp8_tile_rows = tile_rows_for<Float8E4M3>;
  table.fp8_tile_panels = tile_panels_for<Float8E4M3>;
  table.fp8_linear = linear;
  table.fp8_grouped_linear = grouped_linear;
#endif
}

}  // namespace bao::BAO_ISA
