// What matrix_tile.h computes, bit for bit, in vector registers: for few rows of x, whose time is the weights' way from memory. Vectors
// read more panels side by side, and do not wait for one another.
#pragma once

#include "linear_tile.h"
#include "../matrix_registers.h"

namespace bao::BAO_ISA {
namespace {

// (Above, matrix registers are as fast.)
constexpr int kMatrixVectorRows = 4;
// Panels that so many rows are multiplied with at once: each has a sum of even k and one of odd k.
static constexpr int64_t matrix_vector_panels(int64_t rows) { return panels_at_once(kAccumulators, 2 * rows); }

#if defined(__AMX_BF16__)

// acc += x · w over `pairs` pairs of k, which are whole steps of a matrix: of each the even and the odd k are added by themselves.
template <int R, int NP, class Source>
BAO_INLINE void accumulate_steps(F (&acc)[R][NP], const Rows& rows, const Panels& w, int64_t pairs, const Source& source) {
  constexpr int64_t kStepPairs = kMatrixDepth / 2;
  Places<float, R> x(rows.a, rows.row_stride);
  Places<char, NP> panels(w.data, w.stride);
  auto ahead = ahead_of<NP, kMatrixRowBytes, true>(source, w, pairs);
  for (int64_t s = 0; s < pairs;) {
    F even[R][NP] = {}, odd[R][NP] = {};
    for (const int64_t last = s + kStepPairs; s < last;) {
      const int64_t end = min(ahead.until(s), last);
      for (; s < end; s++) {
        ahead.template step<1>();
        F first[NP], second[NP];
        BAO_UNROLL
        for (int p = 0; p < NP; p++) split(load_bits<U>(panels[p]), first[p], second[p]);
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          F even_x, odd_x;
          split(as_bits(set1(x[r][0])), even_x, odd_x);
          BAO_UNROLL
          for (int p = 0; p < NP; p++) {
            accumulate(even[r][p], first[p], even_x);
            accumulate(odd[r][p], second[p], odd_x);
          }
        }
        x.advance(1);
        panels.advance(kMatrixRowBytes);
      }
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      BAO_UNROLL
      for (int p = 0; p < NP; p++) acc[r][p] += even[r][p] + odd[r][p];
    }
  }
}

template <int R, int NP, class Source>
static __attribute__((noinline)) void matrix_vector_tile(const Rows& rows, const Panels& w, int64_t steps, const Source& source,
                                                         const Sums& sums) {
  F acc[R][NP];
  load_sums(acc, sums);
  accumulate_steps<R, NP>(acc, rows, w, steps * (kMatrixDepth / 2), source);
  store_sums(acc, sums);
}

// `steps` steps of some panels by `count` <= R rows.
template <int R, class Source>
static void matrix_vector_rows(int64_t count, const Rows& rows, const Panels& w, int64_t steps, const Source& source, const Sums& sums) {
  if constexpr (R > 1) {
    if (count < R) return matrix_vector_rows<R - 1>(count, rows, w, steps, source, sums);
  }
  for_each_tile<R, matrix_vector_panels(R)>(w, source, [&](auto panels, int64_t first, const auto& own) {
    matrix_vector_tile<R, panels()>(rows, w.from(first), steps, own, sums.columns_from(first * kPanelColumns));
  });
}

#endif

}  // namespace
}  // namespace bao::BAO_ISA
