// Products with weights of 8-bit floats: those of `linear` with the float32 weights that number times scale gives, bit for bit. A few
// rows widen the numbers in registers as they pass; many share a block of a panel that was widened once.
#include "../float8.h"
#include "linear_tile.h"

namespace bao::BAO_ISA {
namespace {

// At their most rows tiles take so many vectors of a panel.
constexpr int kFp8TileVectors = kLanes >= 8 ? 2 : 4, kFp8TileRows = kAccumulators / kFp8TileVectors;
constexpr int kFp8PanelVectors = kFp8PanelColumns / kLanes;
// Few rows take a whole panel at once, so that memory is read in order.
template <int R>
constexpr int tile_vectors = R * kFp8PanelVectors <= kAccumulators ? kFp8PanelVectors : kFp8TileVectors;

constexpr int64_t kGroupBytes = fp8_column_bytes(kFp8Group) * kFp8PanelColumns;
// Bytes of a panel's k are a step of a tile, and so many of them a group's scales.
constexpr int64_t kScaleSteps = 4;

BAO_INLINE const float* scales_of(const char* group) { return reinterpret_cast<const float*>(group); }
BAO_INLINE const Float8E4M3* numbers_of(const char* group) {
  return reinterpret_cast<const Float8E4M3*>(group + kFp8PanelColumns * 4);
}
// Of numbers that load_weights gives.
BAO_INLINE F load_scale(const char* group, int64_t column) { return load(scales_of(group) + column) * kWeightDivisor; }

// NV vectors of a panel's columns for two k.
template <int NV>
BAO_INLINE void load_pair(const Float8E4M3* w, F* out) {
  if constexpr (NV == kFp8PanelVectors) return load_weights<2 * NV>(w, out);
  load_weights<NV>(w, out);
  load_weights<NV>(w + kFp8PanelColumns, out + NV);
}

// NV vectors of a panel's columns by R rows.
template <int R, int NV>
static __attribute__((noinline)) void fp8_tile(const Rows& rows, const Panels& panel, int64_t column, int64_t k, const PanelStream& source,
                                               const Sums& sums) {
  F acc[R][NV];
  load_sums(acc, sums);
  Places<float, R> x(rows.a, rows.row_stride);
  auto ahead = ahead_of<1, kFp8PanelColumns, R <= kReadingRows>(source, panel, fp8_column_bytes(k));
  int64_t done = 0;
  for (const char* group = panel.data; k > 0; k -= kFp8Group, group += kGroupBytes) {
    F scale[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) scale[v] = load_scale(group, column + v * kLanes);
    ahead.until(done);
    ahead.template step<kScaleSteps>();
    done += kScaleSteps;
    const Float8E4M3* w = numbers_of(group) + column;
    const auto multiply = [&](F* weights, int step) __attribute__((always_inline)) {
      F row[NV];
      BAO_UNROLL
      for (int v = 0; v < NV; v++) row[v] = weights[v] * scale[v];
      BAO_UNROLL
      for (int r = 0; r < R; r++) accumulate_row<false>(acc, r, row, set1(x[r][step]));
    };
    const int64_t count = min(k, kFp8Group);
    for (int64_t i = 0; i + 1 < count;) {
      const int64_t end = min(count, ahead.until(done + i) - done);
      for (; i + 1 < end; i += 2, w += 2 * kFp8PanelColumns) {
        ahead.template step<2>();
        F weights[2 * NV];
        load_pair<NV>(w, weights);
        multiply(weights, 0);
        multiply(weights + NV, 1);
        x.advance(2);
      }
    }
    if (count % 2 != 0) {
      F weights[NV];
      load_weights<NV>(w, weights);
      multiply(weights, 0);
    }
    done += count;
  }
  store_sums(acc, sums);
}

// Whole panels by `count` <= R rows.
template <int R>
static void fp8_panels(int64_t count, const Rows& rows, const Panels& panels, int64_t k, const PanelStream& source, const Sums& sums) {
  if constexpr (R > 1) {
    if (count < R) return fp8_panels<R - 1>(count, rows, panels, k, source, sums);
  }
  constexpr int NV = tile_vectors<R>;
  for (int64_t p = 0; p < panels.count; p++) {
    const Sums own = sums.columns_from(p * kFp8PanelColumns);
    for (int v = 0; v < kFp8PanelVectors && v * kLanes < own.columns; v += NV) {
      fp8_tile<R, NV>(rows, panels.from(p), v * kLanes, k, source.of(panels, p, 1), own.columns_from(v * kLanes));
    }
  }
}

// float32 [count, 32] of the `count` k at a group's begin.
static void widen_groups(const char* group, int64_t count, float* out) {
  for (; count > 0; count -= kFp8Group, group += kGroupBytes) {
    F scale[kFp8PanelVectors];
    BAO_UNROLL
    for (int v = 0; v < kFp8PanelVectors; v++) scale[v] = load_scale(group, v * kLanes);
    const Float8E4M3* numbers = numbers_of(group);
    const auto widen = [&](auto rows) __attribute__((always_inline)) {
      F weights[rows() * kFp8PanelVectors];
      load_weights<rows() * kFp8PanelVectors>(numbers, weights);
      BAO_UNROLL
      for (int v = 0; v < rows() * kFp8PanelVectors; v++) store(out + v * kLanes, weights[v] * scale[v % kFp8PanelVectors]);
      numbers += rows() * kFp8PanelColumns;
      out += rows() * kFp8PanelColumns;
    };
    const int64_t rows = min(count, kFp8Group);
    for (int64_t i = 0; i + 1 < rows; i += 2) widen(std::integral_constant<int, 2>{});
    if (rows % 2 != 0) widen(std::integral_constant<int, 1>{});
  }
}

// `k` k of a widened panel by `count` <= R rows. Its columns are as many as those of some float panels, side by side in each k.
template <int R>
static void widened_rows(int64_t count, const Rows& rows, const float* weights, int64_t k, const Shared& source, const Sums& sums) {
  if constexpr (R > 1) {
    if (count < R) return widened_rows<R - 1>(count, rows, weights, k, source, sums);
  }
  constexpr int64_t kPanels = kFp8PanelColumns / kPanelColumns, kAtOnce = tile_panels(R) < kPanels ? tile_panels(R) : kPanels;
  const Panels panels{reinterpret_cast<const char*>(weights), kPanelColumns * 4, kPanels};
  for (int64_t p = 0; p < kPanels && p * kPanelColumns < sums.columns; p += kAtOnce) {
    const Shared own{source.next + p * source.stride, source.stride, source.period};
    tile<R, kAtOnce, float, kFp8PanelColumns * 4>(rows, panels.from(p), k, own, sums.columns_from(p * kPanelColumns));
  }
}

// One panel by several tiles of rows: for each block of k the panel is widened, and all tiles pass over it. Sums between
// blocks lie densely in scratch, as those of `linear`.
static void many_rows(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t panel, void* scratch) {
  const char* w = static_cast<const char*>(a.w) + panel * fp8_column_bytes(a.k) * kFp8PanelColumns;
  float* weights = static_cast<float*>(scratch);
  float* partial = weights + kFp8Depth * kFp8PanelColumns;
  const int64_t column = panel * kFp8PanelColumns;
  constexpr int64_t kLines = ceil_div(kFp8Depth / kFp8Group * kGroupBytes, 64);
  // A tile asks for two lines at once.
  const int64_t tile_lines = ceil_div(kLines, 2 * ceil_div(row_end - row_begin, a.tile_rows));
  for (int64_t k0 = 0; k0 < a.k; k0 += kFp8Depth, w += kFp8Depth / kFp8Group * kGroupBytes) {
    const int64_t depth = min(kFp8Depth, a.k - k0);
    widen_groups(w, depth, weights);
    // Each tile asks for its share of the next block, which follows in memory.
    const char* next = w + fp8_column_bytes(depth) * kFp8PanelColumns;
    for (int64_t row = row_begin; row < row_end; row += a.tile_rows) {
      const int64_t count = min(a.tile_rows, row_end - row);
      float* own = partial + (row - row_begin) * kFp8PanelColumns;
      Sums sums{k0 == 0 ? nullptr : own, kFp8PanelColumns, own, kFp8PanelColumns, nullptr, kFp8PanelColumns};
      if (k0 + depth == a.k) {
        float* out = a.out + row * a.ld_out + column;
        sums = Sums{sums.from, kFp8PanelColumns, out, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
      }
      const Shared source{next, tile_lines * 64, ceil_div(kFp8Depth / kRound<float>, tile_lines)};
      next += 2 * tile_lines * 64;
      widened_rows<kFp8TileRows>(count, Rows{a.x + row * a.ld_x + k0, a.ld_x}, weights, depth, source, sums);
    }
  }
}

static Panels weight_panels(const void* w, int64_t k, int64_t begin, int64_t end) {
  const int64_t stride = fp8_column_bytes(k) * kFp8PanelColumns;
  return {static_cast<const char*>(w) + begin * stride, stride, end - begin};
}

// Panels [panel_begin, panel_end) for rows [row_begin, row_end). `claim_next()` is called once, towards the end: where the weights
// begin that this thread takes next, or nullptr.
template <class ClaimNext>
static void multiply_panels(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                            int64_t panel_end, void* scratch, ClaimNext claim_next) {
  const int64_t count = row_end - row_begin;
  if (count > a.tile_rows) {
    for (int64_t panel = panel_begin; panel < panel_end; panel++) many_rows(a, row_begin, row_end, panel, scratch);
    claim_next();
    return;
  }
  // Where a panel is passed over several times, each pass asks.
  const char* claimed = nullptr;
  bool asked = false;
  auto claim_once = [&] {
    if (!asked) claimed = claim_next();
    asked = true;
    return claimed;
  };
  const Rows rows{a.x + row_begin * a.ld_x, a.ld_x};
  const int64_t column = panel_begin * kFp8PanelColumns;
  const Sums sums{nullptr, 0, a.out + row_begin * a.ld_out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column};
  fp8_panels<kFp8TileRows>(count, rows, weight_panels(a.w, a.k, panel_begin, panel_end), a.k, PanelStream{next_weights(claim_once)}, sums);
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
      const int64_t n = a.n_offset + row, column = n % kFp8PanelColumns;
      char* out = a.destination + n / kFp8PanelColumns * fp8_column_bytes(a.cols) * kFp8PanelColumns + group * kGroupBytes;
      std::memcpy(out + column * 4, &scale, 4);
      for (int64_t i = 0; i < count; i++) out[(4 + i) * kFp8PanelColumns + column] = static_cast<char>(numbers[i]);
    }
  }
}

}  // namespace

static void fp8_linear(const LinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kFp8PanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  for_each_piece(c, row_blocks * a.pieces.count(panels), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = a.pieces.first_panel(piece / row_blocks);
    const int64_t panel_end = min(panels, a.pieces.first_panel(piece / row_blocks + 1));
    multiply_panels(a, row_begin, row_end, panel_begin, panel_end, c.scratch, [&]() -> const char* {
      const int64_t next = claim_next();
      if (next < 0) return nullptr;
      return weight_panels(a.w, a.k, a.pieces.first_panel(next / row_blocks), panels).data;
    });
  });
}

static void fp8_grouped_linear(const GroupedLinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kFp8PanelColumns);
  const int64_t panel_chunks = ceil_div(panels, a.panels_per_chunk);
  const int64_t expert = c.chunk / panel_chunks;
  const int64_t panel_begin = c.chunk % panel_chunks * a.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + a.panels_per_chunk);
  const int64_t row = a.expert_offsets[expert];
  const int64_t count = a.expert_offsets[expert + 1] - row;
  if (count == 0) return;
  const int64_t tile_rows = balanced_tile_rows(count, kFp8TileRows);
  const LinearArgs part{a.x + row * a.ld_x, a.ld_x, a.weights[expert], a.biases ? a.biases + expert * a.n : nullptr,
                        a.out + row * a.ld_out, a.ld_out, count, a.n, a.k, tile_rows, a.w_dtype, false, 0, {}};
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
  table.fp8_tile_rows = [](int64_t rows) { return balanced_tile_rows(rows, kFp8TileRows); };
  table.fp8_tile_panels = [](int64_t) -> int64_t { return 1; };
  table.fp8_linear = fp8_linear;
  table.fp8_grouped_linear = fp8_grouped_linear;
  table.quantize_fp8_weight = quantize_fp8_weight;
}

}  // namespace bao::BAO_ISA
