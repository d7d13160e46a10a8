// Products with quantized weights: out = x · Wᵀ + bias, both sides as integers.
//
// Activations are quantized in every batch, one row alone included: each row's group of k gets its own scale, so that a row's
// result is a function of that row only. Within a group sums are integers, exact in any order; groups are added in float32 in
// order, with a product and a sum that are never fused. So every instruction set gives the same bits.
#include "../quant.h"

#include "prefetch.h"

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

// A word of weights is multiplied in pieces, each with one word of activations:
//   bytes: 4 numbers with 4 int8 (VPDPBUSD; VPMADDUBSW for 4-bit numbers, whose sums stay within 16 bits for a while)
//   pairs: 2 numbers, of 16 bits each, with 2 int16 (PMADDWD)
#if defined(__AVX512VNNI__)
template <int Bits>
constexpr bool kBytes = true;
#elif defined(__AVX2__) && !defined(__AVX512F__)
template <int Bits>
constexpr bool kBytes = Bits == 4;
#else
template <int Bits>
constexpr bool kBytes = false;
#endif
template <int Bits>
constexpr int kPieces = (kBytes<Bits> ? 8 : 16) / Bits;
template <int Bits>
constexpr int64_t kGroupWords = quant_group(Bits) / quant_word(Bits);

BAO_INLINE U splat(uint32_t x) { return x - U{}; }

// A row of activations: its words, kPieces for each word of weights, and for each group the scale and the sum of its integers.
template <int Bits>
struct RowLayout {
  explicit RowLayout(int64_t k)
      : words(ceil_div(k, quant_word(Bits))),
        groups(ceil_div(k, quant_group(Bits))),
        scales(words * kPieces<Bits> * 4),
        sums(scales + groups * 4),
        stride(round_up(sums + groups * 4, 64)) {}
  // Words and groups of weights in a column.
  int64_t words, groups;
  // Bytes from the row's begin, and between rows.
  int64_t scales, sums, stride;
};

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

// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
constexpr float kRound = 12582912.0f;
BAO_INLINE I round_to_int(F x) { return reinterpret_cast<I>(x + kRound) - 0x4b400000; }
// Below that a scale's reciprocal is not finite; such groups are all zero.
constexpr float kSmallestScale = 1e-36f;
constexpr float kInfinity = __builtin_inff(), kNaN = __builtin_nanf("");

// Least and greatest of a group and 0; false where something in it is not finite.
template <int64_t N>
BAO_INLINE bool find_range(const float* values, float& low, float& high) {
  F least{}, greatest{};
  I bad{};
  for (int64_t i = 0; i < N; i += kLanes) {
    const F v = load(values + i);
    bad |= ~(max(v, -v) < kInfinity);
    bad |= v != v;
    least = min(v, least);
    greatest = max(v, greatest);
  }
  low = -reduce_max(-least);
  high = reduce_max(greatest);
  return reduce_max(__builtin_convertvector(bad & 1, F)) == 0.0f;
}

// A group's integers in the order of the pieces: `words` words' worth.
template <int Bits>
BAO_INLINE void write_activations(const I (&q)[quant_group(Bits) / kLanes], int64_t words, char* out) {
  if constexpr (kBytes<Bits>) {
    char bytes[quant_group(Bits)];
    BAO_UNROLL
    for (int64_t i = 0; i < quant_group(Bits) / kLanes; i++) store_bytes(bytes + i * kLanes, q[i]);
    std::memcpy(out, bytes, static_cast<size_t>(words) * kPieces<Bits> * 4);
  } else {
    int32_t numbers[quant_group(Bits)];
    std::memcpy(numbers, q, sizeof(q));
    for (int64_t w = 0; w < words; w++, out += kPieces<Bits> * 4) {
      int16_t pairs[kPieces<Bits> * 2];
      for (int piece = 0; piece < kPieces<Bits>; piece++) {
        // A 4-bit word's upper halves of bytes, the odd pieces, are its last four numbers.
        const int64_t first = w * quant_word(Bits) + (Bits == 8 ? piece : piece % 2 * 4 + piece / 2);
        pairs[piece * 2] = static_cast<int16_t>(numbers[first]);
        pairs[piece * 2 + 1] = static_cast<int16_t>(numbers[first + 2]);
      }
      std::memcpy(out, pairs, sizeof(pairs));
    }
  }
}

template <int Bits>
static void quantize_row(const float* x, int64_t k, char* out) {
  constexpr int64_t kGroup = quant_group(Bits), kVectors = kGroup / kLanes;
  const RowLayout<Bits> layout(k);
  for (int64_t group = 0; group < layout.groups; group++) {
    const int64_t count = min(kGroup, k - group * kGroup);
    float values[kGroup] = {};
    std::memcpy(values, x + group * kGroup, static_cast<size_t>(count) * sizeof(float));
    // Magnitudes are in the order of their bits, those that are not finite last.
    I bits{};
    for (int64_t i = 0; i < kGroup; i += kLanes) bits = max(bits, reinterpret_cast<I>(as_bits(load(values + i)) & 0x7fffffffu));
    const float greatest = bits_to_float(static_cast<uint32_t>(reduce_max(bits)));
    const bool finite = greatest < kInfinity;
    float scale = greatest / 127.0f;
    if (scale < kSmallestScale) scale = 0;
    const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
    if (!finite) scale = kNaN;
    I q[kVectors], sums{};
    for (int64_t i = 0; i < kVectors; i++) {
      q[i] = finite ? round_to_int(load(values + i * kLanes) * inverse) : I{};
      sums += q[i];
    }
    const int32_t sum = reduce_add(sums);
    const int64_t words = min(kGroupWords<Bits>, layout.words - group * kGroupWords<Bits>);
    write_activations<Bits>(q, words, out + group * kGroupWords<Bits> * kPieces<Bits> * 4);
    std::memcpy(out + layout.scales + group * 4, &scale, 4);
    std::memcpy(out + layout.sums + group * 4, &sum, 4);
  }
}

template <int Bits>
static void quantized_linear_chunk(const QuantizedLinearArgs& a, const ChunkContext& c) {
  const RowLayout<Bits> layout(a.k);
  const int64_t panels = ceil_div(a.n, kPanelColumns);
  const int64_t row_blocks = ceil_div(a.m, a.rows_per_piece);
  char* x = static_cast<char*>(a.shared ? c.workspace : c.scratch);
  if (!a.shared) {
    for (int64_t row = 0; row < a.m; row++) quantize_row<Bits>(a.x + row * a.ld_x, a.k, x + row * layout.stride);
  }
  const Rows rows{x, x + layout.scales, x + layout.sums, layout.stride};
  const auto weights = [&](int64_t panel) { return a.w + panel * (layout.words + layout.groups) * kPanelColumns; };
  for_each_piece(c, row_blocks * ceil_div(panels, a.panels_per_piece), [&](int64_t piece, auto claim_next) {
    const int64_t row_begin = piece % row_blocks * a.rows_per_piece;
    const int64_t row_end = min(a.m, row_begin + a.rows_per_piece);
    const int64_t panel_begin = piece / row_blocks * a.panels_per_piece;
    const int64_t panel_end = min(panels, panel_begin + a.panels_per_piece);
    const auto claim_weights = [&] {
      const int64_t next = claim_next();
      return next < 0 ? nullptr : weights(next / row_blocks * a.panels_per_piece);
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
  const QuantizedLinearArgs a{nullptr, 0, g.weights[expert], bias, g.out + begin * g.ld_out, g.ld_out, m, g.n, g.k, g.bits, true, 0, 0};
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

// The nearest bfloat16 that is not below a positive x.
BAO_INLINE float round_up_to_bf16(float x) { return bits_to_float((float_to_bits(x) + 0xffffu) & 0xffff0000u); }

// One group of one output feature as integers; the numbers' bytes are its words of 8 bits, or halves of those of 4 bits.
template <int Bits>
struct QuantizedGroup {
  uint8_t numbers[quant_group(Bits)];
  float scale;
  int32_t zero;
};

// The nearest of the numbers least to most to v / scale + zero, as float.
BAO_INLINE F nearest_number(F v, float inverse, float zero, float least, float most) {
  return min(max(v * inverse + zero, set1(least)), set1(most)) + kRound - kRound;
}

// numbers = values / scale + zero within [least, most].
template <int Bits>
BAO_INLINE void quantize_group(const float* values, int32_t least, int32_t most, QuantizedGroup<Bits>& out) {
  const float inverse = out.scale > 0 ? 1.0f / out.scale : 0.0f;
  for (int64_t i = 0; i < quant_group(Bits); i += kLanes) {
    const F numbers = nearest_number(load(values + i), inverse, static_cast<float>(out.zero), static_cast<float>(least),
                                     static_cast<float>(most));
    const B bytes = __builtin_convertvector(__builtin_convertvector(numbers, I), B);
    std::memcpy(out.numbers + i, &bytes, sizeof(bytes));
  }
}

// The sum of squared errors of a group of 4 bits, in one order for all vector sizes.
BAO_INLINE float quantization_error(const float* values, float scale, float zero) {
  constexpr int kSums = 16 / kLanes;
  const float inverse = 1.0f / scale;
  F errors[kSums] = {};
  for (int64_t i = 0; i < quant_group(4); i += kSums * kLanes) {
    BAO_UNROLL
    for (int s = 0; s < kSums; s++) {
      const F v = load(values + i + s * kLanes);
      const F error = (nearest_number(v, inverse, zero, 0.0f, 15.0f) - zero) * scale - v;
      errors[s] += error * error;
    }
  }
  float lanes[16];
  std::memcpy(lanes, errors, sizeof(lanes));
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// 8 bits: symmetric around 128.
BAO_INLINE void quantize_symmetric(const float* values, float low, float high, QuantizedGroup<8>& out) {
  out.scale = round_up_to_bf16(max(-low, high) / 127.0f);
  if (out.scale < kSmallestScale) out.scale = 0;
  out.zero = 128;
  quantize_group(values, 1, 255, out);
}

// 4 bits: 16 steps from the least to the greatest, with a step for 0 itself. Clipping the range a little costs the extremes and
// sharpens all others: of some ranges, the one with the least squared error is taken.
BAO_INLINE void quantize_asymmetric(const float* values, float low, float high, QuantizedGroup<4>& out) {
  float best_error = kInfinity;
  for (int step = 0; step < 4; step++) {
    const float range = 1.0f - 0.08f * static_cast<float>(step);
    const float scale = round_up_to_bf16((high - low) * range / 15.0f);
    if (scale < kSmallestScale) break;
    const float zero = -low * range / scale + kRound - kRound;
    const float error = quantization_error(values, scale, zero);
    if (error < best_error) {
      best_error = error;
      out.scale = scale;
      out.zero = static_cast<int32_t>(zero);
    }
  }
  quantize_group(values, 0, 15, out);
}

// The group of `values` that begins at `column`, `count` of them within k.
template <int Bits>
BAO_INLINE void quantize_weight_group(const float* values, int64_t count, uint32_t* column) {
  float low, high;
  const bool finite = find_range<quant_group(Bits)>(values, low, high);
  QuantizedGroup<Bits> group{};
  if (!finite) {
    group.scale = kNaN;
  } else if constexpr (Bits == 8) {
    quantize_symmetric(values, low, high, group);
  } else {
    quantize_asymmetric(values, low, high, group);
  }
  *column = (float_to_bits(group.scale) & 0xffff0000u) | static_cast<uint32_t>(group.zero);
  for (int64_t i = 0; i < count; i += quant_word(Bits)) {
    column += kPanelColumns;
    uint32_t parts[2];
    std::memcpy(parts, group.numbers + i, Bits == 8 ? 4 : 8);
    *column = Bits == 8 ? parts[0] : parts[0] | parts[1] << 4;
  }
}

// Rows `begin` to `end`, group by group rather than row by row: a group of a panel stays in the L1 cache until all its columns
// are written.
template <int Bits, class T>
static void quantize_weight_rows(const QuantizeWeightArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = quant_group(Bits);
  const int64_t panel_words = quant_column_words(a.cols, Bits) * kPanelColumns;
  uint32_t* group_words = a.destination;
  for (int64_t k0 = 0; k0 < a.cols; k0 += kGroup) {
    const int64_t count = min(kGroup, a.cols - k0);
    for (int64_t row = begin; row < end; row++) {
      const T* stored = static_cast<const T*>(a.source) + row * a.ld + k0;
      T padded[kGroup];
      if (count < kGroup) {
        std::memset(padded, 0, sizeof(padded));
        std::memcpy(padded, stored, static_cast<size_t>(count) * sizeof(T));
        stored = padded;
      }
      float values[kGroup];
      for (int64_t i = 0; i < kGroup; i += kLanes) store(values + i, load(stored + i));
      const int64_t n = a.n_offset + row;
      quantize_weight_group<Bits>(values, count, group_words + n / kPanelColumns * panel_words + n % kPanelColumns);
    }
    group_words += (kGroupWords<Bits> + 1) * kPanelColumns;
  }
}

template <class Fn>
BAO_INLINE void with_bits(int32_t bits, Fn f) {
  if (bits == 8) {
    f(std::integral_constant<int, 8>());
  } else {
    f(std::integral_constant<int, 4>());
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
      quantize_row<bits.value>(a.x + row * a.ld_x, a.k, static_cast<char*>(c.workspace) + row * stride);
    }
  });
}

static void quantized_linear(const QuantizedLinearArgs& a, const ChunkContext& c) {
  with_bits(a.bits, [&](auto bits) { quantized_linear_chunk<bits.value>(a, c); });
}

static void quantized_grouped_linear(const QuantizedGroupedLinearArgs& a, const ChunkContext& c) {
  with_bits(a.bits, [&](auto bits) { quantized_grouped_chunk<bits.value>(a, c); });
}

static void quantize_weight(const QuantizeWeightArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kQuantizeWeightRows, end = min(a.rows, begin + kQuantizeWeightRows);
  with_dtype(a.source_dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_bits(a.bits, [&](auto bits) { quantize_weight_rows<bits.value, T>(a, begin, end); });
  });
}

void use_quant(KernelTable& table) {
  table.quantized_row_bytes = quantized_row_bytes;
  table.quantize_activations = quantize_activations;
  table.quantized_linear = quantized_linear;
  table.quantized_grouped_linear = quantized_grouped_linear;
  table.quantize_weight = quantize_weight;
}

}  // namespace bao::BAO_ISA
