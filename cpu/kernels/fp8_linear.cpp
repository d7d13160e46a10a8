// Products with weights of 8-bit floats: those of `linear` with the float32 weights that number times scale gives, bit for bit. A few
// rows widen the numbers in registers as they pass; many share a block of a panel that was widened once.
#include "float8.h"
#include "linear_tile.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kGroupBytes = fp8_column_bytes(kFp8Group) * kPanelColumns;

BAO_INLINE const float* scales_of(const char* group) { return reinterpret_cast<const float*>(group); }
BAO_INLINE const Float8E4M3* numbers_of(const char* group) {
  return reinterpret_cast<const Float8E4M3*>(group + kPanelColumns * 4);
}
// Of numbers that load_weights gives.
BAO_INLINE F load_scale(const char* group, int64_t column) { return load(scales_of(group) + column) * kWeightDivisor; }

// NV vectors of a panel's columns for two k.
template <int NV>
BAO_INLINE void load_pair(const Float8E4M3* w, F* out) {
  if constexpr (NV == kPanelVectors) return load_weights<2 * NV>(w, out);
  load_weights<NV>(w, out);
  load_weights<NV>(w + kPanelColumns, out + NV);
}

// `k` k of NV vectors of a panel's columns, from a group's begin on, by R rows.
template <int R, int NV>
static __attribute__((noinline)) void fp8_tile(const Rows& rows, const char* group, int64_t column, int64_t k, Streamed source,
                                               const Sums& sums) {
  F acc[R][NV];
  load_sums(acc, sums);
  RowCursor<R, false> x(rows);
  for (; k > 0; k -= kFp8Group, group += kGroupBytes) {
    F scale[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) scale[v] = load_scale(group, column + v * kLanes);
    const Float8E4M3* w = numbers_of(group) + column;
    const auto multiply = [&](F* weights, int step) __attribute__((always_inline)) {
      F row[NV];
      BAO_UNROLL
      for (int v = 0; v < NV; v++) row[v] = weights[v] * scale[v];
      BAO_UNROLL
      for (int r = 0; r < R; r++) accumulate_row<false>(acc, r, row, set1(x.at(r, step)));
    };
    const int64_t count = min(k, kFp8Group);
    for (int64_t i = 0; i + 1 < count; i += 2, w += 2 * kPanelColumns) {
      source.template step<NV * kLanes * 2>(w);
      F weights[2 * NV];
      load_pair<NV>(w, weights);
      multiply(weights, 0);
      multiply(weights + NV, 1);
      x.advance(2);
    }
    if (count % 2 != 0) {
      F weights[NV];
      load_weights<NV>(w, weights);
      multiply(weights, 0);
    }
  }
  store_sums(acc, sums);
}

// The same for the whole panel by `count` <= R rows.
template <int R>
static void fp8_rows(int64_t count, const Rows& rows, const char* group, int64_t k, Streamed source, const Sums& sums) {
  if constexpr (R > 1) {
    if (count < R) return fp8_rows<R - 1>(count, rows, group, k, source, sums);
  }
  constexpr int NV = tile_vectors<R>;
  for (int v = 0; v < kPanelVectors && v * kLanes < sums.columns; v += NV) {
    fp8_tile<R, NV>(rows, group, v * kLanes, k, source, sums.columns_from(v * kLanes));
  }
}

// A piece's last panel, in two parts: while the second one is multiplied, the next piece's begin is asked for.
template <class ClaimNext>
static void last_panel(int64_t count, const Rows& rows, const char* panel, int64_t k, const Sums& sums,
                       ClaimNext claim_next) {
  constexpr int64_t kTailGroups = ceil_div(kFarBytes, kGroupBytes);
  const int64_t head = max(ceil_div(k, kFp8Group) - kTailGroups, int64_t{0});
  const int64_t head_k = head * kFp8Group;
  float partial[kTileRows * kPanelColumns];
  if (head > 0) {
    fp8_rows<kTileRows>(count, rows, panel, head_k, Streamed{}, Sums{nullptr, 0, partial, kPanelColumns, nullptr, kPanelColumns});
  }
  const char* tail = panel + head * kGroupBytes;
  const Rows rest{rows.a + head_k, rows.row_stride};
  fp8_rows<kTileRows>(count, rest, tail, k - head_k, Streamed::towards(claim_next(), tail),
           Sums{head > 0 ? partial : nullptr, kPanelColumns, sums.to, sums.ld_to, sums.bias, sums.columns});
}

// float32 [count, 32] of the `count` k at a group's begin.
static void widen_groups(const char* group, int64_t count, float* out) {
  for (; count > 0; count -= kFp8Group, group += kGroupBytes) {
    F scale[kPanelVectors];
    BAO_UNROLL
    for (int v = 0; v < kPanelVectors; v++) scale[v] = load_scale(group, v * kLanes);
    const Float8E4M3* numbers = numbers_of(group);
    const auto widen = [&](auto rows) __attribute__((always_inline)) {
      F weights[rows() * kPanelVectors];
      load_weights<rows() * kPanelVectors>(numbers, weights);
      BAO_UNROLL
      for (int v = 0; v < rows() * kPanelVectors; v++) store(out + v * kLanes, weights[v] * scale[v % kPanelVectors]);
      numbers += rows() * kPanelColumns;
      out += rows() * kPanelColumns;
    };
    const int64_t rows = min(count, kFp8Group);
    for (int64_t i = 0; i + 1 < rows; i += 2) widen(std::integral_constant<int, 2>{});
    if (rows % 2 != 0) widen(std::integral_constant<int, 1>{});
  }
}

// One panel by several tiles of rows: for each block of k the panel is widened, and all tiles pass over it. Sums between
// blocks lie densely in scratch, as those of `linear`.
static void many_rows(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t panel, void* scratch) {
  const char* w = static_cast<const char*>(a.w) + panel * fp8_column_bytes(a.k) * kPanelColumns;
  float* weights = static_cast<float*>(scratch);
  float* partial = weights + kFp8Depth * kPanelColumns;
  const int64_t column = panel * kPanelColumns;
  constexpr int64_t kLines = ceil_div(kFp8Depth / kFp8Group * kGroupBytes, 64);
  const int64_t tile_lines = ceil_div(kLines, ceil_div(row_end - row_begin, a.tile_rows));
  for (int64_t k0 = 0; k0 < a.k; k0 += kFp8Depth, w += kFp8Depth / kFp8Group * kGroupBytes) {
    const int64_t depth = min(kFp8Depth, a.k - k0);
    widen_groups(w, depth, weights);
    // Each tile asks for its share of the next block, which follows in memory.
    const char* next = w + fp8_column_bytes(depth) * kPanelColumns;
    for (int64_t row = row_begin; row < row_end; row += a.tile_rows) {
      const int64_t count = min(a.tile_rows, row_end - row);
      float* own = partial + (row - row_begin) * kPanelColumns;
      Sums sums{k0 == 0 ? nullptr : own, kPanelColumns, own, kPanelColumns, nullptr, kPanelColumns};
      if (k0 + depth == a.k) {
        float* out = a.out + row * a.ld_out + column;
        sums = Sums{sums.from, kPanelColumns, out, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
      }
      const Shared source{next, max(kFp8Depth / kRound<float> / tile_lines, int64_t{1})};
      next += tile_lines * 64;
      panel_rows<kTileRows, false>(count, Rows{a.x + row * a.ld_x + k0, a.ld_x}, weights, depth, source, sums);
    }
  }
}

// Panels [panel_begin, panel_end) for rows [row_begin, row_end).
template <class ClaimNext>
static void multiply_panels(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                            int64_t panel_end, void* scratch, ClaimNext claim_next) {
  const int64_t count = row_end - row_begin;
  if (count > a.tile_rows) {
    for (int64_t panel = panel_begin; panel < panel_end; panel++) many_rows(a, row_begin, row_end, panel, scratch);
    claim_next();
    return;
  }
  const Rows rows{a.x + row_begin * a.ld_x, a.ld_x};
  for (int64_t panel = panel_begin; panel < panel_end; panel++) {
    const int64_t column = panel * kPanelColumns;
    const char* w = static_cast<const char*>(a.w) + panel * fp8_column_bytes(a.k) * kPanelColumns;
    const Sums sums{nullptr, 0, a.out + row_begin * a.ld_out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
    if (panel + 1 < panel_end) {
      fp8_rows<kTileRows>(count, rows, w, a.k, Streamed{}, sums);
    } else {
      last_panel(count, rows, w, a.k, sums, claim_next);
    }
  }
}

// One group of a row as numbers, and its scale.
template <class T>
BAO_INLINE float quantize_group(const T* values, int64_t count, uint8_t* numbers) {
  T padded[kFp8Group] = {};
  std::memcpy(padded, values, static_cast<size_t>(count) * sizeof(T));
  F most{};
  I bad{};
  for (int64_t i = 0; i < kFp8Group; i += kLanes) {
    const F v = load(padded + i), magnitude = max(v, -v);
    bad |= ~(magnitude < __builtin_inff());
    most = max(magnitude, most);
  }
  if (reduce_max(__builtin_convertvector(bad & 1, F)) != 0.0f) return __builtin_nanf("");
  float scale = reduce_max(most) / kFp8Greatest;
  if (scale < kFp8SmallestScale) scale = 0;
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int64_t i = 0; i < kFp8Group; i += kLanes) {
    store(reinterpret_cast<Float8E4M3*>(numbers + i), load(padded + i) * inverse);
  }
  return scale;
}

// The same where the checkpoint has numbers and a scale.
BAO_INLINE float take_group(const Float8E4M3* values, int64_t count, float scale, uint8_t* numbers) {
  std::memcpy(numbers, values, static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) {
    if ((numbers[i] & 0x7f) == 0x7f) return __builtin_nanf("");
  }
  return scale;
}

// Rows `begin` to `end`, group by group rather than row by row, as other quantized weights are written.
template <class T>
static void quantize_rows(const Fp8WeightArgs& a, int64_t begin, int64_t end) {
  const int64_t groups = ceil_div(a.cols, kFp8Group);
  for (int64_t group = 0; group < groups; group++) {
    const int64_t count = min(kFp8Group, a.cols - group * kFp8Group);
    for (int64_t row = begin; row < end; row++) {
      const T* values = static_cast<const T*>(a.source) + row * a.ld + group * kFp8Group;
      uint8_t numbers[kFp8Group] = {};
      float scale;
      if constexpr (std::is_same_v<T, Float8E4M3>) {
        scale = take_group(values, count, a.scales[row * groups + group], numbers);
      } else {
        scale = quantize_group(values, count, numbers);
      }
      const int64_t n = a.n_offset + row, column = n % kPanelColumns;
      char* out = a.destination + n / kPanelColumns * fp8_column_bytes(a.cols) * kPanelColumns + group * kGroupBytes;
      std::memcpy(out + column * 4, &scale, 4);
      for (int64_t i = 0; i < count; i++) out[(4 + i) * kPanelColumns + column] = static_cast<char>(numbers[i]);
    }
  }
}

}  // namespace

static void fp8_linear(const LinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  for_each_piece(c, row_blocks * ceil_div(panels, a.panels_per_piece), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = piece / row_blocks * a.panels_per_piece;
    const int64_t panel_end = min(panels, panel_begin + a.panels_per_piece);
    multiply_panels(a, row_begin, row_end, panel_begin, panel_end, c.scratch, [&]() -> const char* {
      const int64_t next = claim_next();
      if (next < 0) return nullptr;
      return static_cast<const char*>(a.w) + next / row_blocks * a.panels_per_piece * fp8_column_bytes(a.k) * kPanelColumns;
    });
  });
}

static void fp8_grouped_linear(const GroupedLinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t panel_chunks = ceil_div(panels, a.panels_per_chunk);
  const int64_t expert = c.chunk / panel_chunks;
  const int64_t panel_begin = c.chunk % panel_chunks * a.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + a.panels_per_chunk);
  const int64_t row = a.expert_offsets[expert];
  const int64_t count = a.expert_offsets[expert + 1] - row;
  if (count == 0) return;
  const int64_t tile_rows = balanced_tile_rows(count, kTileRows);
  const LinearArgs part{a.x + row * a.ld_x, a.ld_x, a.weights[expert], a.biases ? a.biases + expert * a.n : nullptr,
                        a.out + row * a.ld_out, a.ld_out, count, a.n, a.k, tile_rows, a.w_dtype, 0, 0};
  const int64_t rows_at_once = round_up(kGroupedRows, tile_rows);
  for (int64_t begin = 0; begin < count; begin += rows_at_once) {
    const int64_t end = min(count, begin + rows_at_once);
    multiply_panels(part, begin, end, panel_begin, panel_end, c.scratch, []() -> const char* { return nullptr; });
  }
}

static void quantize_fp8_weight(const Fp8WeightArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kQuantizeWeightRows, end = min(a.rows, begin + kQuantizeWeightRows);
  with_cache_dtype(a.source_dtype, [&](auto* type) { quantize_rows<std::remove_pointer_t<decltype(type)>>(a, begin, end); });
}

void use_fp8_linear(KernelTable& table) {
  table.fp8_linear = fp8_linear;
  table.fp8_grouped_linear = fp8_grouped_linear;
  table.quantize_fp8_weight = quantize_fp8_weight;
}

}  // namespace bao::BAO_ISA
