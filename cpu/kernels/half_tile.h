// Register tiles of `linear` for scaled halves (AVX-512 FP16): an instruction multiplies 32 numbers where float32 has 16.
//
// A step is a pair of k; a vector has both k of 16 columns. A half has 11 bits, so that only few products are added as halves:
// those of kHalfSteps steps, in two sums for each output, one of the even k and one of the odd. Both and what is there are then
// added as float32. Error and reasons: docs/decisions/0028-products-of-halves.md.
#pragma once

#include "packed_weight.h"
#include "panel_stream.h"

namespace bao::BAO_ISA {
namespace {

// Where a tile finds x: step s of row r is at a[r * row_stride + s].
struct Rows {
  const float* a;
  int64_t row_stride;
};

// What a tile's sums are to be multiplied by at the end: a float for each column of a panel, `panel_stride` bytes behind those of the panel
// before, and one for each row of x.
struct SumScales {
  const char* panel;
  int64_t panel_stride;
  const float* row;
  int64_t row_stride;
};

// Steps whose products are added as halves. Rows of x are scaled to below 2^6 and columns to 2^3 at most (kColumnExponent in
// packed_weight.cpp), so that these sums, and those of an even and an odd one, stay below 2^15.
constexpr int kHalfSteps = 32;
constexpr int kRowExponent = 5;

#if defined(__AVX512FP16__)
BAO_INLINE void add_product(__m512h& acc, __m512h a, __m512h b) { asm("vfmadd231ph %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b)); }

// low, high: the columns of a and those of b in turn, each the sum of its even and its odd k; 8 and 8 of each.
BAO_INLINE void add_pairs(__m512h a, __m512h b, F& low, F& high) {
  const __m512i first = _mm512_castph_si512(a), second = _mm512_castph_si512(b);
  // a's odd k beside b's even, and a's even beside b's odd.
  const __m512i crossed = _mm512_shrdi_epi32(first, second, 16);
  const __m512i straight = _mm512_mask_blend_epi16(0xaaaaaaaau, first, second);
  const __m512i sums = _mm512_castph_si512(_mm512_add_ph(_mm512_castsi512_ph(straight), _mm512_castsi512_ph(crossed)));
  low += _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_castsi512_si256(sums)));
  high += _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(sums, 1)));
}

// Changes each pair of vectors, and the last one with zeros where there is no other.
template <int N, class Change>
BAO_INLINE void each_pair(F (&sums)[N + N % 2], Change change) {
  BAO_UNROLL_ALL
  for (int i = 0; i < N; i += 2) change(sums[i], sums[i + 1]);
}

// acc += x · w over `k` k, which may be odd; times its scales, if there are any.
template <int R, int NV, int64_t kBytes, bool Twice, class Source>
BAO_INLINE void accumulate_halves(F (&acc)[R][NV], const Rows& rows, const Panels& w, int64_t k, const Source& source,
                                  const SumScales& scales) {
  constexpr int N = R * NV;
  F sums[N + N % 2];
  BAO_UNROLL_ALL
  for (int i = 0; i < N + N % 2; i++) sums[i] = i < N ? acc[i / NV][i % NV] : F{};
  each_pair<N>(sums, [](F& a, F& b) __attribute__((always_inline)) { join_pairs(a, b); });
  if (scales.panel) {
    for (int v = 0; v < NV; v++) prefetch_far(scales.panel + v * scales.panel_stride);
  }

  Places<float, R> x(rows.a, rows.row_stride);
  Places<char, NV> panels(w.data, w.stride);
  const int64_t steps = ceil_div(k, 2);
  auto ahead = ahead_of<NV, kBytes, Twice>(source, w, steps);
  for (int64_t s = 0; s < steps;) {
    __m512h halves[N];
    BAO_UNROLL_ALL
    for (int i = 0; i < N; i++) halves[i] = _mm512_setzero_ph();
    const int64_t last = min(s + kHalfSteps, steps);
    while (s < last) {
      const int64_t end = min(ahead.until(s), last);
      for (; s < end; s++) {
        ahead.template step<1>();
        __m512h row[NV];
        BAO_UNROLL
        for (int v = 0; v < NV; v++) row[v] = load_bits<__m512h>(panels[v]);
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          const F pair = set1(x[r][0]);
          BAO_UNROLL
          for (int v = 0; v < NV; v++) add_product(halves[r * NV + v], row[v], load_bits<__m512h>(&pair));
        }
        x.advance(1);
        panels.advance(kBytes);
      }
    }
    BAO_UNROLL_ALL
    for (int i = 0; i < N; i += 2) add_pairs(halves[i], i + 1 < N ? halves[i + 1] : _mm512_setzero_ph(), sums[i], sums[i + 1]);
  }

  each_pair<N>(sums, [](F& a, F& b) __attribute__((always_inline)) { split_pairs(a, b); });
  BAO_UNROLL_ALL
  for (int i = 0; i < N; i++) acc[i / NV][i % NV] = sums[i];
  if (!scales.panel) return;
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
    const F column = load_bits<F>(scales.panel + v * scales.panel_stride);
    BAO_UNROLL
    for (int r = 0; r < R; r++) acc[r][v] = acc[r][v] * column * scales.row[r * scales.row_stride];
  }
}
#endif

}  // namespace
}  // namespace bao::BAO_ISA
