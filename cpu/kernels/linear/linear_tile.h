// Register tiles of `linear`: R rows of x by NP panels of weights, over steps of k.
//
// A step is one k, or a pair of k where weights are multiplied by VDPBF16PS ("dot") or as halves (half_tile.h). x gives one float a
// step and row, whose bits are two bfloat16 or halves then. Other weights are converted on the way.
#pragma once

#include "half_tile.h"

namespace bao::BAO_ISA {
namespace {

// Accumulators, one row of weights and a broadcast of x must fit the register file.
#if defined(__AVX512F__)
constexpr int kTileRows = 8, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kAccumulators = 12;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 6, kAccumulators = 24;
#else
constexpr int kTileRows = 3, kAccumulators = 12;
#endif
constexpr int kPanelVectors = kPanelColumns / kLanes;
// Of so few rows reading takes the time.
constexpr int kReadingRows = 4, kHalfReadingRows = 8;

// Panels that so many rows are multiplied with at once, at most.
static constexpr int64_t tile_panels(int64_t rows) { return panels_at_once(kAccumulators, rows * kPanelVectors); }

#if defined(__AVX512BF16__)
constexpr bool kBf16Dot = true;
#else
constexpr bool kBf16Dot = false;
#endif
template <class P>
constexpr bool uses_dot = kBf16Dot && std::is_same_v<P, BFloat16>;
template <class P>
constexpr bool uses_halves = std::is_same_v<P, ScaledHalf> || (std::is_same_v<P, Float8E4M3> && !kHasMatrices);
// Whether x is packed: a pair of k in a float's bits.
template <class P>
constexpr bool takes_pairs = uses_dot<P> || uses_halves<P> || uses_matrices<P>;
// Whether a step is such a pair.
template <class P>
constexpr bool steps_by_pairs = uses_dot<P> || std::is_same_v<P, ScaledHalf>;

template <class P>
constexpr int64_t steps_of(int64_t k) {
  return steps_by_pairs<P> ? ceil_div(k, 2) : k;
}
// Bytes of a step of a panel.
template <class P>
constexpr int64_t step_bytes = panel_columns<P> * static_cast<int64_t>(sizeof(P)) * (steps_by_pairs<P> ? 2 : 1);

// Steps that the loop over k takes at once: a pair of bfloat16 that lie together, or so many that the loop itself costs little.
template <class W>
constexpr int kRound = steps_by_pairs<W> ? 1 : std::is_same_v<W, BFloat16> || std::is_same_v<W, Float8E4M3> ? 2 : 4;

// Where a tile's sums come from and go to.
struct Sums {
  // Partial sums of the blocks of k before, nullptr: 0.
  const float* from;
  int64_t ld_from;
  float* to;
  int64_t ld_to;
  // Added at the end, or nullptr.
  const float* bias;
  // Columns that exist in `to` and `bias`.
  int64_t columns;
  // Of halves, for the last block of k; else none.
  SumScales scales = {};

  Sums columns_from(int64_t column) const {
    Sums rest{from ? from + column : nullptr, ld_from, to + column, ld_to, bias ? bias + column : nullptr, columns - column, scales};
    if (scales.panel) rest.scales.panel += column / kPanelColumns * scales.panel_stride;
    return rest;
  }
};

template <bool Dot, int R, int NV>
BAO_INLINE void accumulate_row(F (&acc)[R][NV], int r, const F (&w)[NV], F x) {
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
#if defined(__AVX512BF16__)
    if constexpr (Dot) {
      acc[r][v] = _mm512_dpbf16_ps(acc[r][v], load_bits<__m512bh>(&w[v]), load_bits<__m512bh>(&x));
      continue;
    }
#endif
    accumulate(acc[r][v], w[v], x);
  }
}

// acc += x · w over `k` k, which may be odd.
template <int R, int NP, class W, int64_t kBytes, class Source>
BAO_INLINE void accumulate_panels(F (&acc)[R][NP * kPanelVectors], const Rows& rows, const Panels& w, int64_t k, const Source& source) {
  // Bfloat16 lies in pairs along k: a shift gives the even ones, a mask the odd ones.
  constexpr bool kPairs = std::is_same_v<W, BFloat16> && !uses_dot<W>;
  Places<float, R> x(rows.a, rows.row_stride);
  Places<char, NP> panels(w.data, w.stride);
  const int64_t steps = steps_of<W>(k);
  auto ahead = ahead_of<NP, kBytes, R <= kReadingRows>(source, w, steps);
  const auto step = [&](int i) __attribute__((always_inline)) {
    F row[NP * kPanelVectors];
    BAO_UNROLL
    for (int v = 0; v < NP * kPanelVectors; v++) {
      const char* panel = panels[v / kPanelVectors];
      const int lane = v % kPanelVectors * kLanes;
      if constexpr (kPairs) {
        const U pair = load_bits<U>(panel + lane * 4);
        row[v] = as_float(i == 1 ? pair & 0xffff0000u : pair << 16);
      } else if constexpr (uses_dot<W>) {
        row[v] = load_bits<F>(panel + lane * 4);
      } else {
        row[v] = load(reinterpret_cast<const W*>(panel + i * kBytes) + lane);
      }
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) accumulate_row<uses_dot<W>>(acc, r, row, set1(x[r][i]));
  };
  for (int64_t s = 0; s < steps;) {
    const int64_t end = ahead.until(s);
    for (; s + kRound<W> <= end; s += kRound<W>) {
      ahead.template step<kRound<W>>();
      BAO_UNROLL
      for (int i = 0; i < kRound<W>; i++) step(i);
      x.advance(kRound<W>);
      panels.advance(kRound<W> * kBytes);
    }
    if (end < steps) continue;
    for (; s < steps; s++) {
      step(0);
      x.advance(1);
      panels.advance(kBytes);
    }
  }
}

template <int R, int NV>
BAO_INLINE void load_sums(F (&acc)[R][NV], const Sums& sums) {
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL
    for (int v = 0; v < NV; v++) acc[r][v] = sums.from ? load(sums.from + r * sums.ld_from + v * kLanes) : F{};
  }
}

static __attribute__((noinline)) void copy_columns(const float* from, int64_t ld_from, const Sums& sums, int64_t rows) {
  for (int64_t r = 0; r < rows; r++) {
    float* to = sums.to + r * sums.ld_to;
    for (int64_t i = 0; i < sums.columns; i++) to[i] = sums.bias ? from[r * ld_from + i] + sums.bias[i] : from[r * ld_from + i];
  }
}

template <int R, int NV>
BAO_INLINE void store_sums(F (&acc)[R][NV], const Sums& sums) {
  if (sums.columns < NV * kLanes) {
    // The last columns of a matrix don't fill the vectors. (A copy, so that the sums themselves stay in registers.)
    float c[R * NV * kLanes];
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      BAO_UNROLL
      for (int v = 0; v < NV; v++) store(c + (r * NV + v) * kLanes, acc[r][v]);
    }
    return copy_columns(c, NV * kLanes, sums, R);
  }
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
    if (sums.bias) {
      const F bias = load(sums.bias + v * kLanes);
      BAO_UNROLL
      for (int r = 0; r < R; r++) acc[r][v] = acc[r][v] + bias;
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) store(sums.to + r * sums.ld_to + v * kLanes, acc[r][v]);
  }
}

template <int R, int NP, class W, int64_t StepBytes = step_bytes<W>, class Source>
static __attribute__((noinline)) void tile(const Rows& rows, const Panels& w, int64_t k, const Source& source, const Sums& sums) {
  constexpr int NV = NP * panel_columns<W> / kLanes;
  F acc[R][NV];
  load_sums(acc, sums);
  // Where the sums go has been elsewhere since, or is new: fetched meanwhile, the stores don't wait.
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < NV * kLanes; v += 16) prefetch_for_write(sums.to + r * sums.ld_to + v);
  }
#if defined(__AVX512FP16__)
  if constexpr (std::is_same_v<W, ScaledHalf>) {
    accumulate_halves<R, NV, StepBytes, R <= kHalfReadingRows>(acc, rows, w, k, source, sums.scales);
  } else if constexpr (std::is_same_v<W, Float8E4M3>) {
    accumulate_fp8<R, NP, R <= kHalfReadingRows>(acc, rows, w, k, source, sums.scales);
  } else {
    accumulate_panels<R, NP, W, StepBytes>(acc, rows, w, k, source);
  }
#else
  accumulate_panels<R, NP, W, StepBytes>(acc, rows, w, k, source);
#endif
  store_sums(acc, sums);
}

// `k` k of some panels by `count` <= R rows.
template <int R, class W, class Source>
static void panel_rows(int64_t count, const Rows& rows, const Panels& w, int64_t k, const Source& source, const Sums& sums) {
  if constexpr (R > 1) {
    if (count < R) return panel_rows<R - 1, W>(count, rows, w, k, source, sums);
  }
  for_each_tile<R, tile_panels(R)>(w, source, [&](auto panels, int64_t first, const auto& own) {
    tile<R, panels(), W>(rows, w.from(first), k, own, sums.columns_from(first * panel_columns<W>));
  });
}

}  // namespace
}  // namespace bao::BAO_ISA
