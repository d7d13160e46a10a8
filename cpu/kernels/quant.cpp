// Products with quantized weights: out = x · Wᵀ + bias, both sides as integers.
//
// Activations are quantized in every batch, one row alone included: each row's group of k gets its own scale, so that a row's
// result is a function of that row only. Within a group sums are integers, exact in any order; groups are added in float32 in
// order, with a product and a sum that are never fused. So every instruction set gives the same bits.
#include "prefetch.h"
#include "quant_activations.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512VNNI__)
constexpr int kTileRows = 12, kTileVectors = 2;
#elif defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileVectors = 2;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 4, kTileVectors = 4;
#else
constexpr int kTileRows = 3, kTileVectors = 2;
#endif
constexpr int kPanelVectors = kPanelColumns / kLanes;
// Depth of a block of k that all row tiles pass over; whole groups.
constexpr int64_t kDepth = 512;

BAO_INLINE U splat(uint32_t x) { return x - U{}; }

template <int Bits>
BAO_INLINE U piece_of(U word, int piece) {
  if constexpr (kBytes<Bits>) {
    return Bits == 8 ? word : word >> (piece * 4) & splat(0x0f0f0f0fu);
  } else {
    return word >> (piece * Bits) & splat(Bits == 8 ? 0x00ff00ffu : 0x000f000fu);
  }
}

// Sums of products of 16-bit pairs.
BAO_INLINE I multiply_pairs(U a, U b) {
#if defined(__AVX512F__)
  return reinterpret_cast<I>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<I>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return reinterpret_cast<I>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  const I low = (reinterpret_cast<I>(a << 16) >> 16) * (reinterpret_cast<I>(b << 16) >> 16);
  return low + (reinterpret_cast<I>(a) >> 16) * (reinterpret_cast<I>(b) >> 16);
#endif
}

// total += the products of one piece. Where kShort, total has 16-bit halves, which hold kShortWords words of weights.
#if defined(__AVX2__) && !defined(__AVX512F__)
template <int Bits>
constexpr bool kShort = Bits == 4;
#else
template <int Bits>
constexpr bool kShort = false;
#endif
// Each word adds twice at most 2 * 15 * 127 to a half.
constexpr int64_t kShortWords = 4;

template <int Bits>
BAO_INLINE void multiply_piece(I& total, U weights, U x) {
#if defined(__AVX512VNNI__)
  total = reinterpret_cast<I>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(total), reinterpret_cast<__m512i>(weights),
                                                  reinterpret_cast<__m512i>(x)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
  // Written out for the reason that `accumulate` gives (simd.h).
  U products;
  if constexpr (kShort<Bits>) {
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(total), "=&x"(products) : "x"(weights), "x"(x));
  } else {
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(total), "=&x"(products) : "x"(weights), "x"(x));
  }
#else
  total += multiply_pairs(weights, x);
#endif
}

// Quantized rows of x, at the first group of a block of k.
struct Rows {
  const char* words;
  const char* scales;
  const char* sums;
  int64_t stride;
};

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

template <class T>
BAO_INLINE T read(const char* p, int64_t index) {
  T value;
  std::memcpy(&value, p + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// Weights that several tiles share, which are in the first-level cache.
struct Resident {
  template <int64_t Bytes>
  BAO_INLINE_MEMBER void step(const void*) const {}
};

// One row alone is too few chains of products to hide their latency: each piece of a word gets sums of its own. Those of the upper
// halves of bytes then stay 16 times too large until the group's end, which saves a shift for each word.
template <int Bits, int R>
constexpr int kChains = R == 1 && kBytes<Bits> && !kShort<Bits> ? kPieces<Bits> : 1;

// The integer products of R rows with `count` words of NV vectors of columns.
template <int Bits, int R, int NV, int Chains, class Source>
BAO_INLINE void multiply_words(I (&total)[Chains][R][NV], const char* x, int64_t stride, const uint32_t* w, int64_t count,
                               Source source) {
  for (int64_t i = 0; i < count; i++) {
    U word[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) word[v] = load_bits<U>(w + v * kLanes);
    source.template step<NV * kLanes * 4>(w);
    BAO_UNROLL
    for (int piece = 0; piece < kPieces<Bits>; piece++) {
      U numbers[NV];
      BAO_UNROLL
      for (int v = 0; v < NV; v++) numbers[v] = Chains > 1 ? word[v] & splat(0x0f0f0f0fu << piece * 4) : piece_of<Bits>(word[v], piece);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const U activations = splat(read<uint32_t>(x + r * stride, piece));
        BAO_UNROLL
        for (int v = 0; v < NV; v++) multiply_piece<Bits>(total[piece % Chains][r][v], numbers[v], activations);
      }
    }
    x += kPieces<Bits> * 4;
    w += kPanelColumns;
  }
}

// total = the products of one group.
template <int Bits, int R, int NV, class Source>
BAO_INLINE void multiply_group(I (&total)[R][NV], const char* x, int64_t stride, const uint32_t* w, int64_t count, Source source) {
  constexpr int64_t kStep = kShort<Bits> ? kShortWords : kGroupWords<Bits>;
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) total[r][v] = I{};
  }
  for (int64_t i = 0; i < count; i += kStep) {
    I part[kChains<Bits, R>][R][NV] = {};
    multiply_words<Bits>(part, x + i * kPieces<Bits> * 4, stride, w + i * kPanelColumns, min(kStep, count - i), source);
    BAO_UNROLL
    for (int chain = 0; chain < kChains<Bits, R>; chain++) {
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        BAO_UNROLL
        for (int v = 0; v < NV; v++) {
          const I sum = part[chain][r][v] >> chain * 4;
          total[r][v] += kShort<Bits> ? multiply_pairs(reinterpret_cast<U>(sum), splat(0x00010001u)) : sum;
        }
      }
    }
  }
}

BAO_INLINE F load_columns(const float* p, int64_t columns) { return columns >= kLanes ? load(p) : load_n(p, max(columns, 0)); }
BAO_INLINE void store_columns(float* p, F v, int64_t columns) {
  if (columns >= kLanes) {
    store(p, v);
  } else {
    store_n(p, v, max(columns, 0));
  }
}

// c[R][NV vectors] (+)= rows · `words` words of the columns at w, whose first group's scales w points to.
template <int Bits, int R, int NV, class Source>
static __attribute__((noinline)) void tile(const Rows& rows, const uint32_t* w, int64_t words, Source source, const Output& out) {
  F acc[R][NV];
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      acc[r][v] = out.first ? F{} : load_columns(out.c + r * out.ld + v * kLanes, out.columns - v * kLanes);
    }
  }
  const char* x = rows.words;
  for (int64_t group = 0; words > 0; group++) {
    const int64_t count = min(words, kGroupWords<Bits>);
    I total[R][NV];
    multiply_group<Bits>(total, x, rows.stride, w + kPanelColumns, count, source);
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      const U packed = load_bits<U>(w + v * kLanes);
      const F scale = as_float(packed & splat(0xffff0000u));
      const U zero = packed & splat(0xffffu);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        const F row_scale = set1(read<float>(rows.scales + r * rows.stride, group));
        const I row_sum = set1(read<int32_t>(rows.sums + r * rows.stride, group));
        // Both fit 16 bits, and zero's upper half is 0.
        const I offset = multiply_pairs(zero, reinterpret_cast<U>(row_sum));
        const F product = __builtin_convertvector(total[r][v] - offset, F);
        acc[r][v] = acc[r][v] + product * (scale * row_scale);
      }
    }
    x += count * kPieces<Bits> * 4;
    w += (count + 1) * kPanelColumns;
    words -= count;
  }
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
    const int64_t columns = out.columns - v * kLanes;
    const F bias = out.bias ? load_columns(out.bias + v * kLanes, columns) : F{};
    BAO_UNROLL
    for (int r = 0; r < R; r++) store_columns(out.c + r * out.ld + v * kLanes, acc[r][v] + bias, columns);
  }
}

// `num_vectors` vectors of a panel's columns, w at the first of them, for `count` <= R rows.
template <int Bits, int R, class Source>
static void panel_rows(int64_t count, const Rows& rows, const uint32_t* w, int64_t words, Source source, const Output& out,
                       int num_vectors) {
  if constexpr (R > 1) {
    if (count < R) return panel_rows<Bits, R - 1>(count, rows, w, words, source, out, num_vectors);
  }
  constexpr int NV = std::is_same_v<Source, Streamed> && R == 1 ? kPanelVectors : kTileVectors;
  for (int v = 0; v < num_vectors && v * kLanes < out.columns; v += NV) {
    const int64_t column = v * kLanes;
    const Output part{out.c + column, out.ld, out.bias ? out.bias + column : nullptr, out.columns - column, out.first};
    tile<Bits, R, NV>(rows, w + column, words, source, part);
  }
}

// Rows of x from group `group` on.
template <int Bits>
BAO_INLINE Rows rows_from(const Rows& rows, int64_t group) {
  return {rows.words + group * kGroupWords<Bits> * kPieces<Bits> * 4, rows.scales + group * 4, rows.sums + group * 4, rows.stride};
}

// One tile of rows: each weight is used once. Where the panel is the last one of a piece, the next piece's begin is asked for
// while its last part is multiplied.
template <int Bits, class ClaimNext>
static void few_rows(const QuantizedLinearArgs& a, const Rows& rows, const uint32_t* w, const Output& out, bool last,
                     ClaimNext claim_next) {
  constexpr int64_t kGroupBytes = (kGroupWords<Bits> + 1) * kPanelColumns * 4;
  const int64_t words = ceil_div(a.k, quant_word(Bits));
  if (!last) return panel_rows<Bits, kTileRows>(a.m, rows, w, words, Streamed{}, out, kPanelVectors);
  const int64_t head = max(ceil_div(a.k, quant_group(Bits)) - ceil_div(kFarBytes, kGroupBytes), int64_t{0});
  if (head > 0) {
    const Output part{out.c, out.ld, nullptr, out.columns, true};
    panel_rows<Bits, kTileRows>(a.m, rows, w, head * kGroupWords<Bits>, Streamed{}, part, kPanelVectors);
  }
  const uint32_t* tail = w + head * kGroupBytes / 4;
  const Output part{out.c, out.ld, out.bias, out.columns, head == 0};
  panel_rows<Bits, kTileRows>(a.m, rows_from<Bits>(rows, head), tail, words - head * kGroupWords<Bits>,
                              Streamed::towards(claim_next(), tail), part, kPanelVectors);
}

// Blocks of k by part of a panel stay in the L1 cache while all row tiles pass over them.
template <int Bits>
static void many_rows(const QuantizedLinearArgs& a, const Rows& rows, const uint32_t* w, int64_t row_begin, int64_t row_end,
                      const Output& out) {
  constexpr int64_t kBlockGroups = kDepth / quant_group(Bits), kBlockWords = kBlockGroups * kGroupWords<Bits>;
  const int64_t words = ceil_div(a.k, quant_word(Bits));
  const int64_t tile_rows = balanced_tile_rows(row_end - row_begin, kTileRows);
  for (int64_t word = 0, group = 0; word < words; word += kBlockWords, group += kBlockGroups) {
    const bool last = word + kBlockWords >= words;
    const uint32_t* block = w + (word + group) * kPanelColumns;
    for (int v = 0; v < kPanelVectors; v += kTileVectors) {
      const int64_t column = v * kLanes;
      for (int64_t row = row_begin; row < row_end; row += tile_rows) {
        const int64_t offset = row * rows.stride;
        const Rows part = rows_from<Bits>({rows.words + offset, rows.scales + offset, rows.sums + offset, rows.stride}, group);
        const Output tile_out{out.c + row * out.ld + column, out.ld, last && out.bias ? out.bias + column : nullptr,
                              out.columns - column, word == 0};
        panel_rows<Bits, kTileRows>(min(tile_rows, row_end - row), part, block + column, min(kBlockWords, words - word), Resident{},
                                    tile_out, kTileVectors);
      }
    }
  }
}

// All rows of x into this chunk's own memory. Its first weights are asked for meanwhile, for the product's first lines would have to be waited for.
template <int Bits>
static void quantize_privately(const QuantizedLinearArgs& a, const uint32_t* w, char* x) {
  const RowLayout<Bits> layout(a.k);
  const int64_t ahead = min(kFarBytes, (layout.words + layout.groups) * kPanelColumns * 4);
  const int64_t step = round_up(ceil_div(ahead, layout.groups), 64);
  int64_t at = 0;
  for (int64_t row = 0; row < a.m; row++) {
    quantize_row<Bits>(a.x + row * a.ld_x, a.k, x + row * layout.stride, [&] {
      for (const int64_t stop = min(ahead, at + step); at < stop; at += 64) prefetch_far(reinterpret_cast<const char*>(w) + at);
    });
  }
}

template <int Bits>
static void quantized_linear_chunk(const QuantizedLinearArgs& a, const ChunkContext& c) {
  const RowLayout<Bits> layout(a.k);
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  const auto weights = [&](int64_t panel) { return a.w + panel * (layout.words + layout.groups) * kPanelColumns; };
  char* x = static_cast<char*>(a.shared ? c.workspace : c.scratch);
  if (!a.shared) quantize_privately<Bits>(a, weights(a.pieces.first_panel(c.chunk)), x);
  const Rows rows{x, x + layout.scales, x + layout.sums, layout.stride};
  for_each_piece(c, row_blocks * a.pieces.count(panels), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = a.pieces.first_panel(piece / row_blocks);
    const int64_t panel_end = min(panels, a.pieces.first_panel(piece / row_blocks + 1));
    const auto claim_weights = [&] {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : weights(a.pieces.first_panel(next / row_blocks));
    };
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
      const int64_t column = panel * kPanelColumns;
      const Output out{a.out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column, true};
      if (a.m <= kTileRows) {
        few_rows<Bits>(a, rows, weights(panel), out, panel + 1 == panel_end, claim_weights);
      } else {
        many_rows<Bits>(a, rows, weights(panel), row_begin, row_end, out);
      }
    }
    if (a.m > kTileRows) claim_next();
  });
}

template <int Bits>
static void quantized_grouped_chunk(const QuantizedGroupedLinearArgs& g, const ChunkContext& c) {
  const int64_t panels = ceil_div(g.n, kPanelColumns);
  const int64_t panel_chunks = ceil_div(panels, g.panels_per_chunk);
  const int64_t expert = c.chunk / panel_chunks;
  const int64_t begin = g.expert_offsets[expert], m = g.expert_offsets[expert + 1] - begin;
  if (m == 0) return;
  const int64_t panel_begin = c.chunk % panel_chunks * g.panels_per_chunk;
  const int64_t panel_end = min(panels, panel_begin + g.panels_per_chunk);
  const float* bias = g.biases ? g.biases + expert * g.n : nullptr;
  const QuantizedLinearArgs a{nullptr, 0, g.weights[expert], bias, g.out + begin * g.ld_out, g.ld_out, m, g.n, g.k, g.bits, true, 0, {}};
  const char* x = static_cast<const char*>(c.workspace) + begin * RowLayout<Bits>(g.k).stride;
  const RowLayout<Bits> layout(g.k);
  const Rows rows{x, x + layout.scales, x + layout.sums, layout.stride};
  // Whose weights come next is not known here.
  const auto nobody = []() -> const uint32_t* { return nullptr; };
  for (int64_t panel = panel_begin; panel < panel_end; panel++) {
    const uint32_t* w = a.w + panel * (layout.words + layout.groups) * kPanelColumns;
    const int64_t column = panel * kPanelColumns;
    const Output out{a.out + column, a.ld_out, a.bias ? a.bias + column : nullptr, a.n - column, true};
    if (m <= kTileRows) {
      few_rows<Bits>(a, rows, w, out, false, nobody);
    } else {
      many_rows<Bits>(a, rows, w, 0, m, out);
    }
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

void use_quant(KernelTable& table) {
  table.quantized_row_bytes = quantized_row_bytes;
  table.quantize_activations = quantize_activations;
  table.quantized_linear = quantized_linear;
  table.quantized_grouped_linear = quantized_grouped_linear;
}

}  // namespace bao::BAO_ISA
