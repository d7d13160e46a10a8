// out = x · Wᵀ + bias over packed panels.
//
// Every output is one chain of fused multiply-adds over k = 0, 1, 2, ... (pairs of k with VDPBF16PS), whatever the tile's shape,
// the blocking of k or the number of rows: partial sums between blocks of k are kept in `out` as float32, which changes nothing.
// So a row's result is the same in every batch.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

// Register tiles: R rows by NV vectors of columns. Accumulators, one row of B and a broadcast must fit the register file.
#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVectors = 2, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2, kAccumulators = 12;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6, kTileVectors = 4, kAccumulators = 24;
#else
constexpr int kTileRows = 3, kTileVectors = 4, kAccumulators = 12;
#endif
constexpr int kPanelVectors = kPanelColumns / kLanes;
// Up to that many rows are read in place.
constexpr int kThinRows = 3;

#if defined(__AVX512BF16__)
constexpr bool kBf16Dot = true;
#else
constexpr bool kBf16Dot = false;
#endif
template <class W>
constexpr bool uses_dot = kBf16Dot && std::is_same_v<W, BFloat16>;

// Few rows take a whole panel at once, so that memory is read in order.
template <int R>
constexpr int tile_vectors = R * kPanelVectors <= kAccumulators ? kPanelVectors : kTileVectors;

// Bytes of a k pair's 32 columns.
template <class W>
constexpr int64_t pair_bytes = kPanelColumns * 2 * static_cast<int64_t>(sizeof(W));

// Depth of a block of k where several row tiles share it: half a panel of it stays in the L1 cache.
constexpr int64_t kDepth = 512;
// How far ahead of use memory is asked for where each weight is used once.
constexpr int64_t kPrefetchBytes = 4096;

// Where a tile finds its rows of x: pair p of row r is at a[p * pair_stride + r * row_stride], two floats (or one word of two
// bfloat16 in dot products, with strides in words).
struct Rows {
  const float* a;
  int64_t row_stride;
  int64_t pair_stride;
};

struct Prefetch {
  const char* p;
  int64_t step;
};

template <int NV, class W>
BAO_INLINE F weight(const W* b, int64_t pair, int odd, int v) {
  if constexpr (std::is_same_v<W, BFloat16>) {
    const U raw = load_bits<U>(b + pair * 2 * kPanelColumns + v * 2 * kLanes);
    return odd ? as_float(raw & 0xffff0000u) : as_float(raw << 16);
  } else {
    return load(b + (pair * 2 + odd) * kPanelColumns + v * kLanes);
  }
}

template <int R, int NV, bool Packed, class W>
BAO_INLINE void accumulate_tile(F (&acc)[R][NV], const Rows& rows, const W* b, int64_t k, Prefetch prefetch) {
  constexpr int kLines = static_cast<int>(pair_bytes<W>) * NV / kPanelVectors / 64;
  const int64_t row_stride = Packed ? 2 : rows.row_stride;
  const int64_t pair_stride = Packed ? 2 * R : 2;
  const float* a = rows.a;
  const int64_t pairs = k / 2;
  for (int64_t p = 0; p < pairs; p++) {
    BAO_UNROLL
    for (int line = 0; line < kLines; line++) __builtin_prefetch(prefetch.p + line * 64);
    prefetch.p += prefetch.step;
    BAO_UNROLL
    for (int odd = 0; odd < 2; odd++) {
      F w[NV];
      BAO_UNROLL
      for (int v = 0; v < NV; v++) w[v] = weight<NV>(b, p, odd, v);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const F x = set1(a[r * row_stride + odd]);
        BAO_UNROLL
        for (int v = 0; v < NV; v++) accumulate(acc[r][v], w[v], x);
      }
    }
    a += pair_stride;
  }
  if (k % 2 != 0) {
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F x = set1(a[r * row_stride]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) accumulate(acc[r][v], weight<NV>(b, pairs, 0, v), x);
    }
  }
}

#if defined(__AVX512BF16__)
template <int R, int NV>
BAO_INLINE void accumulate_tile_dot(F (&acc)[R][NV], const Rows& rows, const BFloat16* b, int64_t k, Prefetch prefetch) {
  constexpr int kLines = static_cast<int>(pair_bytes<BFloat16>) * NV / kPanelVectors / 64;
  const float* a = rows.a;
  for (int64_t p = 0; p < ceil_div(k, 2); p++) {
    BAO_UNROLL
    for (int line = 0; line < kLines; line++) __builtin_prefetch(prefetch.p + line * 64);
    prefetch.p += prefetch.step;
    __m512bh w[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) w[v] = load_bits<__m512bh>(b + (p * kPanelColumns + v * kLanes) * 2);
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F pair = set1(a[r]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], w[v], load_bits<__m512bh>(&pair));
    }
    a += R;
  }
}
#endif

struct Output {
  float* c;
  int64_t ld;
  // For the last block of k, else nullptr.
  const float* bias;
  // Columns that exist.
  int64_t columns;
  // The first block of k starts from 0, the others from what is in c.
  bool first;
};

// c[R][NV] (+)= rows · b, whole vectors.
template <int R, int NV, bool Packed, class W>
static __attribute__((noinline)) void tile(const Rows& rows, const W* b, int64_t k, Prefetch prefetch, const Output& out) {
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) acc[r][v] = out.first ? F{} : load(out.c + r * out.ld + v * kLanes);
  }
#if defined(__AVX512BF16__)
  if constexpr (uses_dot<W>) {
    accumulate_tile_dot<R, NV>(acc, rows, b, k, prefetch);
  } else
#endif
  {
    accumulate_tile<R, NV, Packed>(acc, rows, b, k, prefetch);
  }
  if (out.bias) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      const F bias = load(out.bias + v * kLanes);
      BAO_UNROLL
      for (int r = 0; r < R; r++) acc[r][v] = acc[r][v] + bias;
    }
  }
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) store(out.c + r * out.ld + v * kLanes, acc[r][v]);
  }
}

static __attribute__((noinline)) void copy_columns(const float* from, int64_t ld_from, float* to, int64_t ld_to, int64_t rows,
                                                   int64_t columns) {
  for (int64_t r = 0; r < rows; r++) std::memcpy(to + r * ld_to, from + r * ld_from, static_cast<size_t>(columns) * 4);
}

// The last columns of a matrix, which don't fill a tile, take a detour over a whole one.
template <int R, int NV, bool Packed, class W>
static void partial_tile(const Rows& rows, const W* b, int64_t k, Prefetch prefetch, const Output& out) {
  constexpr int64_t kWidth = NV * kLanes;
  float c[R * kWidth] = {}, bias[kWidth] = {};
  if (!out.first) copy_columns(out.c, out.ld, c, kWidth, R, out.columns);
  if (out.bias) copy_columns(out.bias, 0, bias, 0, 1, out.columns);
  tile<R, NV, Packed>(rows, b, k, prefetch, Output{c, kWidth, out.bias ? bias : nullptr, kWidth, out.first});
  copy_columns(c, kWidth, out.c, out.ld, R, out.columns);
}

// Columns [first_vector, first_vector + num_vectors) of one panel for `count` <= R rows over one block of k, at whose first pair
// `w` is. Wide: tiles as wide as the registers allow for that many rows.
template <int R, bool Packed, bool Wide, class W>
static void panel_rows(int64_t count, const Rows& rows, const W* w, int64_t k, Prefetch prefetch, const Output& out,
                       int first_vector, int num_vectors) {
  if constexpr (R > 1) {
    if (count < R) return panel_rows<R - 1, Packed, Wide>(count, rows, w, k, prefetch, out, first_vector, num_vectors);
  }
  constexpr int NV = Wide ? tile_vectors<R> : kTileVectors;
  constexpr int64_t kPairElements = std::is_same_v<W, BFloat16> ? 2 : 1;
  for (int v = first_vector; v < first_vector + num_vectors && v * kLanes < out.columns; v += NV) {
    const int64_t column = v * kLanes;
    const Output part{out.c + column, out.ld, out.bias ? out.bias + column : nullptr, out.columns - column, out.first};
    const Prefetch ahead{prefetch.p + column * (pair_bytes<W> / kPanelColumns), prefetch.step};
    if (part.columns >= NV * kLanes) {
      tile<R, NV, Packed>(rows, w + column * kPairElements, k, ahead, part);
    } else {
      partial_tile<R, NV, Packed>(rows, w + column * kPairElements, k, ahead, part);
    }
  }
}

// Few rows: each weight is read once, x in place.
template <class W>
static void thin_panel(const LinearArgs& a, const W* w, const Rows& rows, int64_t count, float* out, const float* bias,
                       int64_t columns) {
  const Prefetch prefetch{reinterpret_cast<const char*>(w) + kPrefetchBytes, pair_bytes<W>};
  const Output output{out, a.ld_out, bias, columns, true};
  panel_rows<uses_dot<W> ? kTileRows : kThinRows, uses_dot<W>, true>(count, rows, w, a.k, prefetch, output, 0, kPanelVectors);
}

// Many rows, packed: blocks of k by part of a panel stay in the L1 cache while all row tiles pass over them; meanwhile each tile
// asks for its share of the next block.
template <class W>
static void thick_panel(const LinearArgs& a, const W* w, const float* packed, int64_t row_begin, int64_t row_end, float* out,
                        const float* bias, int64_t columns) {
  constexpr int64_t kWordsPerPair = uses_dot<W> ? 1 : 2;
  const int64_t pairs = ceil_div(a.k, 2);
  const int64_t tiles = ceil_div(row_end - row_begin, kTileRows);
  for (int64_t k0 = 0; k0 < a.k; k0 += kDepth) {
    const int64_t depth = min(kDepth, a.k - k0);
    const W* block = w + k0 * kPanelColumns;
    const char* next = reinterpret_cast<const char*>(block) + kDepth / 2 * pair_bytes<W>;
    for (int v = 0; v < kPanelVectors; v += kTileVectors) {
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t row = row_begin + t * kTileRows;
        const int64_t count = min(kTileRows, row_end - row);
        const float* tile_rows = packed + row * pairs * kWordsPerPair + k0 / 2 * count * kWordsPerPair;
        const Prefetch prefetch{next + t * (kDepth / 2 * pair_bytes<W> / tiles), pair_bytes<W> / tiles};
        const float* last_bias = k0 + depth >= a.k ? bias : nullptr;
        const Output output{out + row * a.ld_out, a.ld_out, last_bias, columns, k0 == 0};
        panel_rows<kTileRows, true, false>(count, Rows{tile_rows, 0, 0}, block, depth, prefetch, output, v, kTileVectors);
      }
    }
  }
}

// Rows [row, row + count) as one packed tile; see PackActivationsArgs.
template <bool Dot>
static void pack_tile(const float* x, int64_t ld, int64_t count, int64_t k, float* out) {
  const int64_t pairs = ceil_div(k, 2);
  for (int64_t r = 0; r < count; r++) {
    const float* row = x + r * ld;
    for (int64_t p = 0; p < pairs; p++) {
      const float even = row[2 * p];
      const float odd = 2 * p + 1 < k ? row[2 * p + 1] : 0.0f;
      if constexpr (Dot) {
        const uint32_t word = to_bf16(even).bits | static_cast<uint32_t>(to_bf16(odd).bits) << 16;
        out[p * count + r] = bits_to_float(word);
      } else {
        out[(p * count + r) * 2] = even;
        out[(p * count + r) * 2 + 1] = odd;
      }
    }
  }
}

// The tile of `count` rows from x on, which are rows `row` and following of all that is packed.
BAO_INLINE void pack_rows(const float* x, int64_t ld, int64_t row, int64_t count, int64_t k, int32_t w_dtype, float* packed) {
  const int64_t pairs = ceil_div(k, 2);
  if (kBf16Dot && w_dtype == kBFloat16) {
    pack_tile<true>(x, ld, count, k, packed + row * pairs);
  } else {
    pack_tile<false>(x, ld, count, k, packed + row * pairs * 2);
  }
}

// Panels [panel_begin, panel_end) for rows [row_begin, row_end) of what is packed, or for all rows in place where nothing is.
template <class W>
static void multiply_panels(const LinearArgs& a, const Rows& rows, const float* packed, int64_t row_begin, int64_t row_end,
                            int64_t panel_begin, int64_t panel_end) {
  for (int64_t panel = panel_begin; panel < panel_end; panel++) {
    const W* w = static_cast<const W*>(a.w) + panel * round_up(a.k, 2) * kPanelColumns;
    const int64_t column = panel * kPanelColumns;
    const float* bias = a.bias ? a.bias + column : nullptr;
    if (packed) {
      thick_panel(a, w, packed, row_begin, row_end, a.out + column, bias, a.n - column);
    } else {
      thin_panel(a, w, rows, a.m, a.out + column, bias, a.n - column);
    }
  }
}

template <class W>
static void linear_panels(const LinearArgs& a, const ChunkContext& c) {
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_chunk);
  const int64_t row_begin = c.chunk % row_blocks * a.rows_per_chunk;
  const int64_t row_end = min(a.m, row_begin + a.rows_per_chunk);
  const int64_t panel_begin = c.chunk / row_blocks * a.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + a.panels_per_chunk);
  Rows rows{a.x, a.ld_x, 2};
  if (!a.packed && uses_dot<W>) {
    if (c.first_of_thread) pack_tile<true>(a.x, a.ld_x, a.m, a.k, static_cast<float*>(c.scratch));
    rows.a = static_cast<const float*>(c.scratch);
  }
  const float* packed = a.packed ? static_cast<const float*>(c.workspace) : nullptr;
  multiply_panels<W>(a, rows, packed, row_begin, row_end, panel_begin, panel_end);
}

template <class W>
static void grouped_panels(const GroupedLinearArgs& a, const ChunkContext& c, int64_t expert, int64_t panel_begin,
                           int64_t panel_end) {
  constexpr int64_t kWordsPerPair = uses_dot<W> ? 1 : 2;
  const int64_t row = a.expert_offsets[expert];
  const int64_t count = a.expert_offsets[expert + 1] - row;
  const float* packed = static_cast<const float*>(c.workspace) + row * ceil_div(a.k, 2) * kWordsPerPair;
  const bool thick = count > (uses_dot<W> ? kTileRows : kThinRows);
  const float* bias = a.biases ? a.biases + expert * a.n : nullptr;
  const LinearArgs part{a.x + row * a.ld_x, a.ld_x, a.weights[expert], bias,    a.out + row * a.ld_out, a.ld_out, count,
                        a.n,                a.k,    a.w_dtype,         thick,   kGroupedRows,          a.panels_per_chunk};
  const Rows rows{uses_dot<W> ? packed : part.x, part.ld_x, 2};
  for (int64_t begin = 0; begin < count; begin += kGroupedRows) {
    const int64_t end = min(count, begin + kGroupedRows);
    multiply_panels<W>(part, rows, thick ? packed : nullptr, begin, end, panel_begin, panel_end);
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
    const int64_t tiles = ceil_div(rows, kTileRows);
    if (tile < tiles) {
      const int64_t row = begin + tile * kTileRows;
      const int64_t count = min(kTileRows, rows - tile * kTileRows);
      pack_rows(a.x + row * a.ld_x, a.ld_x, row, count, a.k, a.w_dtype, static_cast<float*>(c.workspace));
      return;
    }
    tile -= tiles;
  }
}

static void pack_activations(const PackActivationsArgs& a, const ChunkContext& c) {
  const int64_t row = static_cast<int64_t>(c.chunk) * kTileRows;
  const int64_t count = min(kTileRows, a.m - row);
  pack_rows(a.x + row * a.ld_x, a.ld_x, row, count, a.k, a.w_dtype, static_cast<float*>(c.workspace));
}

void use_linear(KernelTable& table) {
  table.isa = kIsa;
  table.tile_rows = kTileRows;
  table.thin_rows = kThinRows;
  table.bf16_dot = kBf16Dot;
  table.linear = linear;
  table.pack_grouped_activations = pack_grouped_activations;
  table.grouped_linear = grouped_linear;
  table.pack_activations = pack_activations;
}

}  // namespace bao::BAO_ISA
