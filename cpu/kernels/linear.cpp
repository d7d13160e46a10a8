// out = x · Wᵀ + bias over packed panels.
//
// Every output is one chain of fused multiply-adds over k = 0, 1, 2, ... (pairs of k with VDPBF16PS), whatever the tile's shape,
// the blocking of k or the number of rows: partial sums between blocks of k are kept as float32, which changes nothing.
// So a row's result is the same in every batch.
#include "linear_tile.h"

namespace bao::BAO_ISA {
namespace {

// Bytes of a block that several row tiles share: it stays in the first-level cache while they pass over it.
constexpr int64_t kBlockBytes = 24 << 10;

// Where a tile of rows [row, row + count) finds x from k0 on: in place, or packed where a step is two k.
template <class W>
BAO_INLINE Rows rows_at(const LinearArgs& a, const float* packed, int64_t row, int64_t count, int64_t k0) {
  if constexpr (uses_dot<W>) return {packed + row * steps_of<W>(a.k) + steps_of<W>(k0) * count, 0};
  return {a.x + row * a.ld_x + k0, a.ld_x};
}

template <class W>
BAO_INLINE Panels weight_panels(const void* w, int64_t k, int64_t begin, int64_t end) {
  const int64_t stride = round_up(k, 2) * kPanelColumns * static_cast<int64_t>(sizeof(W));
  return {static_cast<const char*>(w) + begin * stride, stride, end - begin};
}

// Some panels of a matrix by several tiles of rows, which pass together over one block of weights after another: as many panels
// as a tile takes at once, over some k.
template <class W>
class Blocks {
 public:
  Blocks(const LinearArgs& a, const float* packed, int64_t row_begin, int64_t row_end, int64_t panel_begin, int64_t panel_end,
         void* scratch)
      : a_(a),
        packed_(packed),
        row_begin_(row_begin),
        rows_(row_end - row_begin),
        panel_begin_(panel_begin),
        panels_(weight_panels<W>(a.w, a.k, panel_begin, panel_end)),
        at_once_(tile_panels(a.tile_rows)),
        depth_(round_up(ceil_div(a.k, ceil_div(a.k * at_once_ * kColumnBytes, kBlockBytes)), kAllRounds)),
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
  // Bytes of a k of a panel.
  static constexpr int64_t kColumnBytes = kPanelColumns * static_cast<int64_t>(sizeof(W));

  Panels block(int64_t panel, int64_t k0) const {
    return {panels_[panel] + k0 * kColumnBytes, panels_.stride, min(at_once_, panels_.count - panel)};
  }

  // All rows by one block; meanwhile each tile asks for its share of the next one.
  void multiply_block(int64_t panel, int64_t k0, const char* next) const {
    const Panels weights = block(panel, k0);
    const int64_t depth = min(depth_, a_.k - k0);
    const int64_t tiles = ceil_div(rows_, a_.tile_rows);
    const int64_t tile_lines = ceil_div(depth_ * kColumnBytes / 64, tiles);
    const int64_t period = ceil_div(steps_of<W>(depth) / kRound<W>, tile_lines);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = t * a_.tile_rows;
      const int64_t count = min(a_.tile_rows, rows_ - row);
      const Rows x = rows_at<W>(a_, packed_, row_begin_ + row, count, k0);
      const Shared source{next + t * tile_lines * 64, panels_.stride, period};
      panel_rows<kTileRows, uses_dot<W>, W>(count, x, weights, depth, source, sums(row, panel, k0));
    }
  }

  // Sums between blocks of k lie densely: rows of `out` are far apart, at distances that fall on few sets of a cache.
  Sums sums(int64_t row, int64_t panel, int64_t k0) const {
    const int64_t column = (panel_begin_ + panel) * kPanelColumns;
    const int64_t ld = at_once_ * kPanelColumns;
    float* partial = partial_ + row * ld;
    const float* from = k0 == 0 ? nullptr : partial;
    if (k0 + depth_ < a_.k) return {from, ld, partial, ld, nullptr, ld};
    float* out = a_.out + (row_begin_ + row) * a_.ld_out + column;
    return {from, ld, out, a_.ld_out, a_.bias ? a_.bias + column : nullptr, a_.n - column};
  }

  const LinearArgs& a_;
  const float* packed_;
  int64_t row_begin_, rows_, panel_begin_;
  Panels panels_;
  int64_t at_once_, depth_;
  float* partial_;
};

// The tile of `count` rows from x on, which are rows `row` and following of all that is packed; see PackActivationsArgs.
static void pack_rows(const float* x, int64_t ld, int64_t row, int64_t count, int64_t k, float* packed) {
  constexpr int64_t kStripe = 64;
  float* out = packed + row * ceil_div(k, 2);
  for (int64_t k0 = 0; k0 < k; k0 += kStripe) {
    const int64_t end = min(k, k0 + kStripe);
    for (int64_t r = 0; r < count; r++) {
      const float* from = x + r * ld;
      for (int64_t i = k0; i < end; i += 2) {
        const float odd = i + 1 < k ? from[i + 1] : 0.0f;
        const uint32_t word = to_bf16(from[i]).bits | static_cast<uint32_t>(to_bf16(odd).bits) << 16;
        out[i / 2 * count + r] = bits_to_float(word);
      }
    }
  }
}

// Panels [panel_begin, panel_end) for rows [row_begin, row_end); `packed` is x where a step is two k.
// `claim_next()` is called once, towards the end: where the weights begin that this thread takes next, or nullptr.
template <class W, class ClaimNext>
static void multiply_panels(const LinearArgs& a, const float* packed, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                            int64_t panel_end, void* scratch, ClaimNext claim_next) {
  const NextWeights next = next_weights(claim_next);
  const int64_t count = row_end - row_begin;
  if (count > a.tile_rows) {
    return Blocks<W>(a, packed, row_begin, row_end, panel_begin, panel_end, scratch).multiply(next);
  }
  const Rows rows = rows_at<W>(a, packed, row_begin, count, 0);
  const int64_t column = panel_begin * kPanelColumns;
  const Sums sums{nullptr, 0, a.out + row_begin * a.ld_out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
  panel_rows<kTileRows, uses_dot<W>, W>(count, rows, weight_panels<W>(a.w, a.k, panel_begin, panel_end), a.k, PanelStream{next}, sums);
}

template <class W>
static void linear_panels(const LinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  const float* packed = static_cast<const float*>(c.workspace);
  for_each_piece(c, row_blocks * ceil_div(panels, a.panels_per_piece), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = piece / row_blocks * a.panels_per_piece;
    const int64_t panel_end = min(panels, panel_begin + a.panels_per_piece);
    multiply_panels<W>(a, packed, row_begin, row_end, panel_begin, panel_end, c.scratch, [&]() -> const char* {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : weight_panels<W>(a.w, a.k, next / row_blocks * a.panels_per_piece, panels).data;
    });
  });
}

template <class W>
static void grouped_panels(const GroupedLinearArgs& a, const ChunkContext& c, int64_t expert, int64_t panel_begin,
                           int64_t panel_end) {
  const int64_t row = a.expert_offsets[expert];
  const int64_t count = a.expert_offsets[expert + 1] - row;
  if (count == 0) return;
  const float* packed = static_cast<const float*>(c.workspace) + row * steps_of<W>(a.k);
  const int64_t tile_rows = balanced_tile_rows(count, kTileRows);
  const LinearArgs part{a.x + row * a.ld_x, a.ld_x, a.weights[expert], a.biases ? a.biases + expert * a.n : nullptr,
                        a.out + row * a.ld_out, a.ld_out, count, a.n, a.k, tile_rows, a.w_dtype, 0, 0};
  const int64_t rows_at_once = round_up(kGroupedRows, tile_rows);
  for (int64_t begin = 0; begin < count; begin += rows_at_once) {
    const int64_t end = min(count, begin + rows_at_once);
    const auto none = []() -> const char* { return nullptr; };
    multiply_panels<W>(part, packed, begin, end, panel_begin, panel_end, c.scratch, none);
  }
}

}  // namespace

static void linear(const LinearArgs& a, const ChunkContext& c) {
  with_dtype(a.w_dtype, [&](auto* type) { linear_panels<std::remove_pointer_t<decltype(type)>>(a, c); });
}

static void grouped_linear(const GroupedLinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t panel_chunks = ceil_div(panels, a.panels_per_chunk);
  const int64_t expert = c.chunk / panel_chunks;
  const int64_t panel_begin = c.chunk % panel_chunks * a.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + a.panels_per_chunk);
  with_dtype(a.w_dtype, [&](auto* type) {
    grouped_panels<std::remove_pointer_t<decltype(type)>>(a, c, expert, panel_begin, panel_end);
  });
}

static void pack_grouped_activations(const GroupedLinearArgs& a, const ChunkContext& c) {
  int64_t tile = c.chunk;
  for (int64_t expert = 0; expert < a.num_experts; expert++) {
    const int64_t begin = a.expert_offsets[expert];
    const int64_t rows = a.expert_offsets[expert + 1] - begin;
    const int64_t tile_rows = balanced_tile_rows(rows, kTileRows);
    const int64_t tiles = ceil_div(rows, tile_rows);
    if (tile < tiles) {
      const int64_t row = begin + tile * tile_rows;
      const int64_t count = min(tile_rows, rows - tile * tile_rows);
      pack_rows(a.x + row * a.ld_x, a.ld_x, row, count, a.k, static_cast<float*>(c.workspace));
      return;
    }
    tile -= tiles;
  }
}

static void pack_activations(const PackActivationsArgs& a, const ChunkContext& c) {
  const int64_t row = static_cast<int64_t>(c.chunk) * a.tile_rows;
  const int64_t count = min(a.tile_rows, a.m - row);
  pack_rows(a.x + row * a.ld_x, a.ld_x, row, count, a.k, static_cast<float*>(c.workspace));
}

void use_linear(KernelTable& table) {
  table.tile_rows = kTileRows;
  table.tile_panels = tile_panels;
  table.bf16_dot = kBf16Dot;
  table.linear = linear;
  table.pack_grouped_activations = pack_grouped_activations;
  table.grouped_linear = grouped_linear;
  table.pack_activations = pack_activations;
}

}  // namespace bao::BAO_ISA
