// Products with quantized weights: out = x · Wᵀ + bias, both sides as integers.
//
// Activations are quantized in every batch, one row alone included: each row's group of k gets its own scale, so that a row's
// result is a function of that row only. Within a group sums are integers, exact in any order; groups are added in float32 in
// order, with a product and a sum that are never fused. So every instruction set gives the same bits.
#include "quant_matrix.h"

namespace bao::BAO_ISA {
namespace {

// Of each of a chunk's first panels.
constexpr int64_t kFirstBytes = 4096;
// Depth of a block of k that all row tiles pass over; whole groups.
constexpr int64_t kDepth = 512;

// Rows of x from group `group` on.
template <int Bits>
BAO_INLINE Rows rows_from(const Rows& rows, int64_t group) {
  return {rows.words + group * kGroupWords<Bits> * kPieces<Bits> * 4, rows.scales + group * 4, rows.sums + group * 4, rows.stride};
}

template <int Bits>
BAO_INLINE Panels weight_panels(const uint32_t* w, int64_t k, int64_t begin, int64_t end) {
  const int64_t stride = quant_column_words(k, Bits) * kStepBytes;
  return {reinterpret_cast<const char*>(w) + begin * stride, stride, end - begin};
}

// Rows [row_begin, row_end) in several tiles, which pass together over one block of weights after another: as many panels as a
// tile takes at once, over some groups of k. Meanwhile each tile asks for its share of the next block.
template <int Bits>
static void share_blocks(const Rows& rows, int64_t row_begin, int64_t row_end, const Panels& w, int64_t words, NextWeights last,
                         const Output& out) {
  constexpr int64_t kBlockGroups = kDepth / quant_group(Bits), kBlockWords = kBlockGroups * kGroupWords<Bits>;
  constexpr int64_t kBlockSteps = kBlockWords + kBlockGroups;
  const int64_t tile_rows = balanced_tile_rows(row_end - row_begin, kTileRows);
  const int64_t tiles = ceil_div(row_end - row_begin, tile_rows);
  const int64_t at_once = tile_panels(tile_rows);
  for (int64_t p = 0; p < w.count; p += at_once) {
    for (int64_t word = 0, group = 0; word < words; word += kBlockWords, group += kBlockGroups) {
      const char* block = w[p] + (word + group) * kStepBytes;
      const bool ends = word + kBlockWords >= words;
      const char* next = ends ? p + at_once < w.count ? w[p + at_once] : last.claim(last.self) : block + kBlockSteps * kStepBytes;
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t row = row_begin + t * tile_rows, offset = row * rows.stride;
        const Rows part = rows_from<Bits>({rows.words + offset, rows.scales + offset, rows.sums + offset, rows.stride}, group);
        const Output columns = out.columns_from(p * kQuantPanelColumns);
        const Output own{columns.c + row * out.ld, out.ld, ends ? columns.bias : nullptr, columns.columns, word == 0};
        const int64_t lines = ceil_div(kBlockSteps, tiles);
        const Shared source{(next ? next : block) + t * lines * 64, w.stride, ceil_div(kBlockSteps, lines)};
        panel_rows<Bits, kTileRows>(min(tile_rows, row_end - row), part, Panels{block, w.stride, min(at_once, w.count - p)},
                                      min(kBlockWords, words - word), source, own);
      }
    }
  }
}

// Some panels for rows [row_begin, row_end). `claim_next()` is called once, towards the end: where the weights begin that this
// thread takes next, or nullptr.
template <int Bits, class ClaimNext>
static void multiply_panels(MatrixRegisters& registers, const Rows& rows, int64_t row_begin, int64_t row_end, const Panels& w, int64_t k,
                            const Output& out, ClaimNext claim_next) {
  const NextWeights next = next_weights(claim_next);
  const int64_t words = ceil_div(k, quant_word(Bits)), count = row_end - row_begin;
  const int64_t offset = row_begin * rows.stride;
  const Rows own{rows.words + offset, rows.scales + offset, rows.sums + offset, rows.stride};
  const Output own_out{out.c + row_begin * out.ld, out.ld, out.bias, out.columns, true};
#if defined(__AMX_INT8__)
  if (count >= kLeastMatrixRows<Bits>) return matrix_panels<Bits>(registers, own, count, w, words, next, own_out);
#endif
  static_cast<void>(registers);
  if (count > kTileRows) return share_blocks<Bits>(rows, row_begin, row_end, w, words, next, out);
  panel_rows<Bits, kTileRows>(count, own, w, words, PanelStream{next}, own_out);
}

// All rows of x into this chunk's own memory. The begin of its first weights is asked for meanwhile, for the product's first lines would have
// to be waited for.
template <int Bits>
static void quantize_privately(const QuantizedLinearArgs& a, const Panels& w, char* x) {
  const RowLayout<Bits> layout(a.k);
  const int64_t ahead = min(kFirstBytes, w.stride);
  const int64_t step = round_up(ceil_div(ahead, layout.groups), 64);
  int64_t at = 0;
  for (int64_t row = 0; row < a.m; row++) {
    quantize_row<Bits>(a.x + row * a.ld_x, a.k, x + row * layout.stride, [&] {
      for (const int64_t stop = min(ahead, at + step); at < stop; at += 64) {
        for (int64_t p = 0; p < w.count && p < kMaxTilePanels; p++) prefetch_far(w[p] + at);
      }
    });
  }
}

template <int Bits>
static void quantized_linear_chunk(const QuantizedLinearArgs& a, const ChunkContext& c) {
  const RowLayout<Bits> layout(a.k);
  const int64_t panels = ceil_div(a.n, kQuantPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  char* x = static_cast<char*>(a.shared ? c.workspace : c.scratch);
  if (!a.shared) quantize_privately<Bits>(a, weight_panels<Bits>(a.w, a.k, a.pieces.first_panel(c.chunk), panels), x);
  const Rows rows{x, x + layout.scales, x + layout.sums, layout.stride};
  MatrixRegisters registers;
  for_each_piece(c, row_blocks * a.pieces.count(panels), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = a.pieces.first_panel(piece / row_blocks);
    const int64_t panel_end = min(panels, a.pieces.first_panel(piece / row_blocks + 1));
    const int64_t column = panel_begin * kQuantPanelColumns;
    const Output out{a.out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column, true};
    const Panels w = weight_panels<Bits>(a.w, a.k, panel_begin, panel_end);
    multiply_panels<Bits>(registers, rows, row_begin, row_end, w, a.k, out, [&]() -> const char* {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : weight_panels<Bits>(a.w, a.k, a.pieces.first_panel(next / row_blocks), panels).data;
    });
  });
}

template <int Bits>
static void quantized_grouped_chunk(const QuantizedGroupedLinearArgs& g, const ChunkContext& c) {
  const int64_t panels = ceil_div(g.n, kQuantPanelColumns);
  const int64_t panel_chunks = ceil_div(panels, g.panels_per_chunk);
  const int64_t expert = c.chunk / panel_chunks;
  const int64_t begin = g.expert_offsets[expert], m = g.expert_offsets[expert + 1] - begin;
  if (m == 0) return;
  const int64_t panel_begin = c.chunk % panel_chunks * g.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + g.panels_per_chunk);
  const float* bias = g.biases ? g.biases + expert * g.n : nullptr;
  const RowLayout<Bits> layout(g.k);
  const char* x = static_cast<const char*>(c.workspace) + begin * layout.stride;
  const Rows rows{x, x + layout.scales, x + layout.sums, layout.stride};
  const int64_t column = panel_begin * kQuantPanelColumns;
  const Output out{g.out + begin * g.ld_out + column, g.ld_out, bias ? bias + column : nullptr, g.n - column, true};
  // Whose weights come next is not known here.
  const auto nobody = []() -> const char* { return nullptr; };
  const Panels w = weight_panels<Bits>(g.weights[expert], g.k, panel_begin, panel_end);
  MatrixRegisters registers;
  for (int64_t row = 0; row < m; row += kQuantizedRows) {
    multiply_panels<Bits>(registers, rows, row, min(m, row + kQuantizedRows), w, g.k, out, nobody);
  }
}

}  // namespace

static int64_t quantized_row_bytes(int64_t k, int32_t bits) {
  return bits == 8 ? RowLayout<8>(k).stride : RowLayout<4>(k).stride;
}

static void quantize_activations(const QuantizeActivationsArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kQuantizeRows, end = min(a.m, begin + kQuantizeRows);
  const int64_t stride = quantized_row_bytes(a.k, a.bits);
  with_bits(a.bits, [&](auto bits) {
    for (int64_t row = begin; row < end; row++) {
      quantize_row<bits.value>(a.x + row * a.ld_x, a.k, static_cast<char*>(c.workspace) + row * stride, [] {});
    }
  });
}

static void quantized_linear(const QuantizedLinearArgs& a, const ChunkContext& c) {
  with_bits(a.bits, [&](auto bits) { quantized_linear_chunk<bits.value>(a, c); });
}

static void quantized_grouped_linear(const QuantizedGroupedLinearArgs& a, const ChunkContext& c) {
  with_bits(a.bits, [&](auto bits) { quantized_grouped_chunk<bits.value>(a, c); });
}

static int64_t quantized_tile_rows(int32_t bits, int64_t rows) {
  const int64_t least = bits == 8 ? kLeastMatrixRows<8> : kLeastMatrixRows<4>;
  return rows >= least ? kMatrixRows : balanced_tile_rows(rows, kTileRows);
}

static int64_t quantized_tile_panels(int64_t tile_rows) { return tile_rows > kTileRows ? kMatrixPanels : tile_panels(tile_rows); }

void use_quant(KernelTable& table) {
  table.quantized_row_bytes = quantized_row_bytes;
  table.quantized_tile_rows = quantized_tile_rows;
  table.quantized_tile_panels = quantized_tile_panels;
  table.quantize_activations = quantize_activations;
  table.quantized_linear = quantized_linear;
  table.quantized_grouped_linear = quantized_grouped_linear;
}

}  // namespace bao::BAO_ISA
