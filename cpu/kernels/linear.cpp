// out = x · Wᵀ + bias over packed panels.
//
// Every output is one chain of fused multiply-adds over k = 0, 1, 2, ... (pairs of k with VDPBF16PS), whatever the tile's shape,
// the blocking of k or the number of rows: partial sums between blocks of k are kept as float32, which changes nothing.
// So a row's result is the same in every batch.
#include "linear_tile.h"

namespace bao::BAO_ISA {
namespace {

// k in a block that several row tiles share: it stays in the first-level cache while they pass over it.
constexpr int64_t kDepth = 512;

// Where a tile of rows [row, row + count) finds x from k0 on: in place, or packed where a step is two k.
template <class W>
BAO_INLINE Rows rows_at(const LinearArgs& a, const float* packed, int64_t row, int64_t count, int64_t k0) {
  if constexpr (uses_dot<W>) return {packed + row * steps_of<W>(a.k) + steps_of<W>(k0) * count, 0};
  return {a.x + row * a.ld_x + k0, a.ld_x};
}

// Some panels of a matrix by several tiles of rows, which pass together over one block of weights after another, in the
// order of memory.
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
        panels_(panel_end - panel_begin),
        partial_(static_cast<float*>(scratch)) {}

  template <class ClaimNext>
  void multiply(ClaimNext claim_next) const {
    for (int64_t panel = 0; panel < panels_; panel++) {
      for (int64_t k0 = 0; k0 < a_.k; k0 += kDepth) {
        const W* next = weights(panel, k0 + kDepth);
        if (k0 + kDepth >= a_.k) next = panel + 1 < panels_ ? weights(panel + 1, 0) : claim_next();
        multiply_block(panel, k0, next ? next : weights(panel, k0), depth(k0 + kDepth < a_.k ? k0 + kDepth : 0));
      }
    }
  }

 private:
  const W* weights(int64_t panel, int64_t k0) const {
    return static_cast<const W*>(a_.w) + ((panel_begin_ + panel) * round_up(a_.k, 2) + k0) * kPanelColumns;
  }

  // k in the block from k0 on.
  int64_t depth(int64_t k0) const { return min(kDepth, a_.k - k0); }

  // All rows by one block; meanwhile each tile asks for its share of the next one, which is `next_depth` k deep.
  void multiply_block(int64_t panel, int64_t k0, const W* next, int64_t next_depth) const {
    const int64_t tiles = ceil_div(rows_, a_.tile_rows);
    const int64_t lines = next_depth * kPanelColumns * static_cast<int64_t>(sizeof(W)) / 64;
    const int64_t tile_lines = ceil_div(lines, tiles);
    const int64_t period = max(steps_of<W>(depth(k0)) / kRound<W> / tile_lines, int64_t{1});
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = t * a_.tile_rows;
      const int64_t count = min(a_.tile_rows, rows_ - row);
      const Shared source{reinterpret_cast<const char*>(next) + t * tile_lines * 64, period};
      const Rows x = rows_at<W>(a_, packed_, row_begin_ + row, count, k0);
      panel_rows<kTileRows, uses_dot<W>>(count, x, weights(panel, k0), depth(k0), source, sums(row, panel, k0));
    }
  }

  // Sums between blocks of k lie densely: rows of `out` are far apart, at distances that fall on few sets of a cache.
  Sums sums(int64_t row, int64_t panel, int64_t k0) const {
    const int64_t column = (panel_begin_ + panel) * kPanelColumns;
    float* partial = partial_ + row * kPanelColumns;
    const float* from = k0 == 0 ? nullptr : partial;
    if (k0 + kDepth < a_.k) return {from, kPanelColumns, partial, kPanelColumns, nullptr, kPanelColumns};
    float* out = a_.out + (row_begin_ + row) * a_.ld_out + column;
    return {from, kPanelColumns, out, a_.ld_out, a_.bias ? a_.bias + column : nullptr, a_.n - column};
  }

  const LinearArgs& a_;
  const float* packed_;
  int64_t row_begin_, rows_, panel_begin_, panels_;
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

template <class W>
BAO_INLINE const W* panel_weights(const void* w, int64_t k, int64_t panel) {
  return static_cast<const W*>(w) + panel * round_up(k, 2) * kPanelColumns;
}

// The last panel of a piece, in two parts: while the second one is multiplied, the next piece's begin is asked for.
template <class W, class ClaimNext>
static void last_panel(int64_t count, const Rows& rows, const W* w, int64_t k, const Sums& sums, ClaimNext claim_next) {
  constexpr int64_t kTail = kFarBytes / (kPanelColumns * static_cast<int64_t>(sizeof(W)));
  const int64_t head = k > kTail ? (k - kTail) / 2 * 2 : 0;
  float partial[kTileRows * kPanelColumns];
  if (head > 0) {
    const Sums sums_so_far{nullptr, 0, partial, kPanelColumns, nullptr, kPanelColumns};
    panel_rows<kTileRows, uses_dot<W>>(count, rows, w, head, Streamed{}, sums_so_far);
  }
  const Rows rest{rows.a + steps_of<W>(head) * (uses_dot<W> ? count : 1), rows.row_stride};
  const W* tail = w + head * kPanelColumns;
  panel_rows<kTileRows, uses_dot<W>>(count, rest, tail, k - head, Streamed::towards(claim_next(), tail),
                                     Sums{head > 0 ? partial : nullptr, kPanelColumns, sums.to, sums.ld_to, sums.bias, sums.columns});
}

// Panels [panel_begin, panel_end) for rows [row_begin, row_end); `packed` is x where a step is two k.
// `claim_next()` is called once, towards the end: where the weights begin that this thread takes next, or nullptr.
template <class W, class ClaimNext>
static void multiply_panels(const LinearArgs& a, const float* packed, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                            int64_t panel_end, void* scratch, ClaimNext claim_next) {
  const int64_t count = row_end - row_begin;
  if (count > a.tile_rows) {
    return Blocks<W>(a, packed, row_begin, row_end, panel_begin, panel_end, scratch).multiply(claim_next);
  }
  const Rows rows = rows_at<W>(a, packed, row_begin, count, 0);
  for (int64_t panel = panel_begin; panel < panel_end; panel++) {
    const int64_t column = panel * kPanelColumns;
    const W* w = panel_weights<W>(a.w, a.k, panel);
    const Sums sums{nullptr, 0, a.out + row_begin * a.ld_out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
    if (panel + 1 < panel_end) {
      panel_rows<kTileRows, uses_dot<W>>(count, rows, w, a.k, Streamed{}, sums);
    } else {
      last_panel(count, rows, w, a.k, sums, claim_next);
    }
  }
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
    multiply_panels<W>(a, packed, row_begin, row_end, panel_begin, panel_end, c.scratch, [&] {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : panel_weights<W>(a.w, a.k, next / row_blocks * a.panels_per_piece);
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
    const auto none = []() -> const W* { return nullptr; };
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
  table.bf16_dot = kBf16Dot;
  table.linear = linear;
  table.pack_grouped_activations = pack_grouped_activations;
  table.grouped_linear = grouped_linear;
  table.pack_activations = pack_activations;
}

}  // namespace bao::BAO_ISA
