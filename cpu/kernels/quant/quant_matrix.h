// Products of quantized sides in AMX's matrix registers: a group of k of two panels, as signed bytes, stays in registers while 16 rows of x
// after another pass. While the sums of some are converted and added up, the next are multiplied.
//
// Registers 0 and 1 are sums, 2 and 3 rows of x, 4 and 5 weights of one panel, 6 and 7 of the other; 4-bit groups fill half of them.
#pragma once

#include "../matrix_registers.h"
#include "quant_tile.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMatrixPanels = 2;

#if defined(__AMX_INT8__)

// From so many rows on matrix registers are faster: more than one tile of vector registers, or three where those take weights as they lie.
template <int Bits>
constexpr int64_t kLeastMatrixRows = (Bits == 4 ? 1 : 3) * kTileRows + 1;

// Bytes of a group of a row of x; of one column of weights, too.
template <int Bits>
constexpr int64_t kGroupBytes = quant_group(Bits);
template <int Bits>
constexpr int64_t kGroupMatrices = kGroupBytes<Bits> / kMatrixRowBytes;

// Rows between two requests for memory: a group of 8 bits has many lines.
template <int Bits>
constexpr int64_t kAskingRows = Bits == 8 ? 4 : 16;

BAO_INLINE U subtract_bytes(U a, U b) {
  return reinterpret_cast<U>(_mm512_sub_epi8(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// `count` words of a group as bytes without their zero, in the order of k, and 0 in place of missing ones.
template <int Bits, int NP>
BAO_INLINE void unpack_group(Places<char, NP>& w, const U (&scales)[NP], int64_t count, char (&bytes)[NP][kGroupMatrices<Bits> * kMatrixBytes]) {
  U zeros[NP];
  BAO_UNROLL
  for (int p = 0; p < NP; p++) zeros[p] = Bits == 8 ? splat(0x80808080u) : (scales[p] & splat(0xffffu)) * splat(0x01010101u);
  int64_t at = 0;
  for (int64_t i = 0; i < count; i++) {
    BAO_UNROLL
    for (int p = 0; p < NP; p++) {
      const U word = load_bits<U>(w[p]);
      BAO_UNROLL
      for (int piece = 0; piece < kPieces<Bits>; piece++) {
        const U numbers = subtract_bytes(piece_of<Bits>(word, piece), zeros[p]);
        std::memcpy(bytes[p] + at + piece * kStepBytes, &numbers, sizeof(U));
      }
    }
    at += kPieces<Bits> * kStepBytes;
    w.advance(kStepBytes);
  }
  for (int p = 0; at < int64_t{sizeof(bytes[p])} && p < NP; p++) std::memset(bytes[p] + at, 0, sizeof(bytes[p]) - at);
}

template <int Bits, int Register>
BAO_INLINE void load_group(const char* rows, int64_t stride, int64_t next) {
  load_matrix<Register>(rows, stride);
  if constexpr (kGroupMatrices<Bits> > 1) load_matrix<Register + 1>(rows + next, stride);
}

template <int Bits, int Sums, int Weights>
BAO_INLINE void multiply_group_matrices() {
  clear_matrix<Sums>();
  multiply_byte_matrices<Sums, 2, Weights>();
  if constexpr (kGroupMatrices<Bits> > 1) multiply_byte_matrices<Sums, 3, Weights + 1>();
}

// acc [rows][16] += a group's sums, as floats. ask() comes before each few rows: what shall be fetched meanwhile.
template <int Bits, class Ask>
BAO_INLINE void add_group(float* acc, const int32_t* sums, F scale, const char* row_scales, int64_t stride, int64_t rows, Ask ask) {
  const auto add = [&](int64_t r) __attribute__((always_inline)) {
    const F row_scale = set1(read<float>(row_scales + r * stride, 0));
    const F sum = __builtin_convertvector(load_bits<I>(sums + r * kLanes), F);
    store(acc + r * kLanes, load(acc + r * kLanes) + sum * (scale * row_scale));
  };
  if (rows == kMatrixRows) {
    BAO_UNROLL
    for (int64_t r = 0; r < kMatrixRows; r++) {
      if (r % kAskingRows<Bits> == 0) ask();
      add(r);
    }
  } else {
    for (int64_t r = 0; r < rows; r++) {
      if (r % kAskingRows<Bits> == 0) ask();
      add(r);
    }
  }
}

// `count` <= kQuantizedRows rows by NP panels.
template <int Bits, int NP, class Source>
static __attribute__((noinline)) void matrix_tile(const Rows& rows, int64_t count, const Panels& panels, int64_t words, const Source& source,
                                                  const Output& out) {
  constexpr int64_t kSums = kMatrixRows * kLanes;
  alignas(64) float acc[kQuantizedRows / kMatrixRows * NP * kSums];
  alignas(64) int32_t sums[NP][kSums];
  alignas(64) char weights[NP][kGroupMatrices<Bits> * kMatrixBytes];
  const int64_t tiles = ceil_div(count, kMatrixRows);
  // Lines of the output come from far: of each tile some rows' in each group, so that the stores at the end don't wait.
  const int64_t asked_rows = ceil_div(kMatrixRows, ceil_div(words, kGroupWords<Bits>));
  std::memset(acc, 0, static_cast<size_t>(tiles * NP * kSums * 4));
  Places<char, NP> w(panels.data, panels.stride);
  auto ahead = ahead_of<NP, kStepBytes, false>(source, panels, words + ceil_div(words, kGroupWords<Bits>));
  int64_t done = 0;
  for (int64_t group = 0; words > 0; group++) {
    const int64_t group_words = min(words, kGroupWords<Bits>);
    U scales[NP];
    BAO_UNROLL
    for (int p = 0; p < NP; p++) scales[p] = load_bits<U>(w[p]);
    w.advance(kStepBytes);
    unpack_group<Bits, NP>(w, scales, group_words, weights);
    words -= group_words;
    BAO_UNROLL
    for (int p = 0; p < NP; p++) scales[p] &= splat(0xffff0000u);

    load_group<Bits, 4>(weights[0], kMatrixRowBytes, kMatrixBytes);
    if constexpr (NP > 1) load_group<Bits, 6>(weights[1], kMatrixRowBytes, kMatrixBytes);
    const char* x = rows.words + group * kGroupBytes<Bits>;
    const char* row_scales = rows.scales + group * 4;
    load_group<Bits, 2>(x, rows.stride, kMatrixRowBytes);
    multiply_group_matrices<Bits, 0, 4>();
    // Lines that later groups lie in are asked for one after another: many at once would hold up what is read meanwhile.
    const int64_t group_end = done + group_words + 1;
    const int64_t steps = ceil_div(group_words + 1, ceil_div(count, kAskingRows<Bits>) * NP);
    const auto ask = [&]() __attribute__((always_inline)) {
      for (const int64_t end = min(done + steps, group_end); done < end; done++) {
        ahead.until(done);
        ahead.template step<1>();
      }
    };
    float* tile_acc = acc;
    int64_t asked_row = group * asked_rows;
    for (int64_t left = count; left > 0; left -= kMatrixRows) {
      const int64_t tile_rows = min(left, kMatrixRows);
      if constexpr (NP > 1) multiply_group_matrices<Bits, 1, 6>();
      x += kMatrixRows * rows.stride;
      if (left > kMatrixRows) load_group<Bits, 2>(x, rows.stride, kMatrixRowBytes);
      store_matrix<0>(sums[0], kMatrixRowBytes);
      if constexpr (NP == 1) {
        if (left > kMatrixRows) multiply_group_matrices<Bits, 0, 4>();
      }
      add_group<Bits>(tile_acc, sums[0], as_float(scales[0]), row_scales, rows.stride, tile_rows, ask);
      if constexpr (NP > 1) {
        if (left > kMatrixRows) multiply_group_matrices<Bits, 0, 4>();
        store_matrix<1>(sums[1], kMatrixRowBytes);
        add_group<Bits>(tile_acc + kSums, sums[1], as_float(scales[1]), row_scales, rows.stride, tile_rows, ask);
      }
      for (int64_t r = asked_row; r < min(asked_row + asked_rows, count); r++) {
        BAO_UNROLL
        for (int p = 0; p < NP; p++) prefetch_for_write(out.c + r * out.ld + p * kLanes);
      }
      asked_row += kMatrixRows;
      row_scales += kMatrixRows * rows.stride;
      tile_acc += NP * kSums;
    }
  }
  for (int64_t r = 0; r < count; r++) {
    const float* tile_acc = acc + r / kMatrixRows * NP * kSums + r % kMatrixRows * kLanes;
    BAO_UNROLL
    for (int p = 0; p < NP; p++) {
      const int64_t columns = out.columns - p * kLanes;
      const F bias = out.bias ? load_columns(out.bias + p * kLanes, columns) : F{};
      store_columns(out.c + r * out.ld + p * kLanes, load(tile_acc + p * kSums) + bias, columns);
    }
  }
}

// The same for any number of panels.
template <int Bits>
static void matrix_panels(MatrixRegisters& registers, const Rows& rows, int64_t count, const Panels& w, int64_t words, NextWeights next,
                          const Output& out) {
  static_assert(kBytes<Bits> && kQuantPanelColumns == kLanes && kQuantizedRows % kMatrixRows == 0);
  registers.shape(0x1010101010101010u);
  for_each_tile<kMatrixRows, kMatrixPanels>(w, PanelStream{next}, [&](auto panels, int64_t first, const PanelStream& source) {
    matrix_tile<Bits, panels()>(rows, count, w.from(first), words, source, out.columns_from(first * kQuantPanelColumns));
  });
}

#else

template <int Bits>
constexpr int64_t kLeastMatrixRows = INT64_MAX;

#endif

}  // namespace
}  // namespace bao::BAO_ISA
