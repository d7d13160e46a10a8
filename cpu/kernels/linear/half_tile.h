// Register tiles of `linear` for halves (AVX-512 FP16): an instruction multiplies 32 numbers where float32 has 16. A half has 11 bits, so that
// only few products are added as halves, and their sums as float32.
//   Scaled halves: a step is a pair of k, a vector has both k of 16 columns; kHalfSteps steps are added, the even k and the odd by themselves.
//   8-bit floats: a step is one k of 32 columns; a group is added, whose sum is then multiplied by its scale.
// Error and reasons: docs/decisions/0028-products-of-halves.md.
#pragma once

#include "packed_weight.h"
#include "../panel_stream.h"

namespace bao::BAO_ISA {
namespace {

// Where a tile finds x: step s of row r is at a[r * row_stride + s].
struct Rows {
  const float* a;
  int64_t row_stride;
};

// What a tile's sums are to be multiplied by at the end: one float for each row of x and, of scaled halves, one for each column of a panel,
// `panel_stride` bytes behind those of the panel before.
struct SumScales {
  const float* row;
  int64_t row_stride;
  const char* panel;
  int64_t panel_stride;
};

// Steps whose products are added as halves. Rows of x are scaled to below 2^6 and columns to 2^3 at most (kColumnExponent in
// packed_weight.cpp), so that these sums, and those of an even and an odd one, stay below 2^15.
constexpr int kHalfSteps = 32;
constexpr int kRowExponent = 5;

#if defined(__AVX512FP16__)
// low, high: the columns of a and those of b in turn, each the sum of its even and its odd k; 8 and 8 of each.
BAO_INLINE void add_pairs(Halves a, Halves b, F& low, F& high) {
  const __m512i first = _mm512_castph_si512(a), second = _mm512_castph_si512(b);
  // a's odd k beside b's even, and a's even beside b's odd.
  const __m512i crossed = _mm512_shrdi_epi32(first, second, 16);
  const __m512i straight = _mm512_mask_blend_epi16(0xaaaaaaaau, first, second);
  const Halves sums = _mm512_add_ph(_mm512_castsi512_ph(straight), _mm512_castsi512_ph(crossed));
  low += lower_half(sums);
  high += upper_half(sums);
}

// acc += x · w over `k` k of scaled halves, which may be odd; times its scales, if there are any.
template <int R, int NV, int64_t kBytes, bool Twice, class Source>
BAO_INLINE void accumulate_halves(F (&acc)[R][NV], const Rows& rows, const Panels& w, int64_t k, const Source& source,
                                  const SumScales& scales) {
  constexpr int N = R * NV;
  // In pairs as add_pairs has them, the last one with zeros where there is no other.
  F sums[N + N % 2];
  BAO_UNROLL_ALL
  for (int i = 0; i < N + N % 2; i++) sums[i] = i < N ? acc[i / NV][i % NV] : F{};
  BAO_UNROLL_ALL
  for (int i = 0; i < N; i += 2) join_pairs(sums[i], sums[i + 1]);
  if (scales.panel) {
    for (int v = 0; v < NV; v++) prefetch_far(scales.panel + v * scales.panel_stride);
  }

  Places<float, R> x(rows.a, rows.row_stride);
  Places<char, NV> panels(w.data, w.stride);
  const int64_t steps = ceil_div(k, 2);
  auto ahead = ahead_of<NV, kBytes, Twice>(source, w, steps);
  for (int64_t s = 0; s < steps;) {
    Halves halves[N];
    BAO_UNROLL_ALL
    for (int i = 0; i < N; i++) halves[i] = _mm512_setzero_ph();
    const int64_t last = min(s + kHalfSteps, steps);
    while (s < last) {
      const int64_t end = min(ahead.until(s), last);
      for (; s < end; s++) {
        ahead.template step<1>();
        Halves row[NV];
        BAO_UNROLL
        for (int v = 0; v < NV; v++) row[v] = load_bits<Halves>(panels[v]);
        BAO_UNROLL
        for (int r = 0; r < R; r++) {
          const F pair = set1(x[r][0]);
          BAO_UNROLL
          for (int v = 0; v < NV; v++) add_product(halves[r * NV + v], row[v], load_bits<Halves>(&pair));
        }
        x.advance(1);
        panels.advance(kBytes);
      }
    }
    BAO_UNROLL_ALL
    for (int i = 0; i < N; i += 2) add_pairs(halves[i], i + 1 < N ? halves[i + 1] : _mm512_setzero_ph(), sums[i], sums[i + 1]);
  }

  BAO_UNROLL_ALL
  for (int i = 0; i < N; i += 2) split_pairs(sums[i], sums[i + 1]);
  BAO_UNROLL_ALL
  for (int i = 0; i < N; i++) acc[i / NV][i % NV] = sums[i];
  if (!scales.row) return;
  BAO_UNROLL
  for (int v = 0; v < NV; v++) {
    const F column = load_bits<F>(scales.panel + v * scales.panel_stride);
    BAO_UNROLL
    for (int r = 0; r < R; r++) acc[r][v] = acc[r][v] * column * scales.row[r * scales.row_stride];
  }
}

// 32 numbers over 256, NaN taken for a number: the scale of a group that has one is NaN itself.
BAO_INLINE Halves load_halves(const char* numbers) {
  const __m512i wide = _mm512_slli_epi16(_mm512_cvtepi8_epi16(load_bits<__m256i>(numbers)), 7);
  return _mm512_castsi512_ph(_mm512_and_si512(wide, _mm512_set1_epi16(static_cast<int16_t>(0xbfff))));
}

// acc += x · w over `k` k of 8-bit floats from a group's begin on; times its scales, if there are any.
template <int R, int NP, bool Twice, class Source>
BAO_INLINE void accumulate_fp8(F (&acc)[R][2 * NP], const Rows& rows, const Panels& w, int64_t k, const Source& source, const SumScales& scales) {
  // Of each panel 32 bytes are a step, and so many steps a group's scales.
  constexpr int64_t kBytes = kFp8PanelColumns, kScaleSteps = 4;
  constexpr int N = R * NP;
  Places<uint16_t, R> x(reinterpret_cast<const uint16_t*>(rows.a), 2 * rows.row_stride);
  Places<char, NP> panels(w.data, w.stride);
  auto ahead = ahead_of<NP, kBytes, Twice>(source, w, fp8_column_bytes(k));
  int64_t done = 0;
  for (; k > 0; k -= kFp8Group) {
    ahead.until(done);
    ahead.template step<kScaleSteps>();
    done += kScaleSteps;
    const Places<char, NP> group = panels;
    panels.advance(kScaleSteps * kBytes);
    Halves halves[N];
    BAO_UNROLL_ALL
    for (int i = 0; i < N; i++) halves[i] = _mm512_setzero_ph();
    const auto step = [&](int i) __attribute__((always_inline)) {
      Halves row[NP];
      BAO_UNROLL
      for (int p = 0; p < NP; p++) row[p] = load_halves(panels[p] + i * kBytes);
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        BAO_UNROLL
        for (int p = 0; p < NP; p++) add_product(halves[r * NP + p], row[p], x[r][i]);
      }
    };
    const int64_t count = min(k, kFp8Group);
    for (int64_t i = 0; i + 1 < count;) {
      const int64_t end = min(count, ahead.until(done + i) - done);
      for (; i + 1 < end; i += 2) {
        ahead.template step<2>();
        step(0);
        step(1);
        x.advance(2);
        panels.advance(2 * kBytes);
      }
    }
    if (count % 2 != 0) step(0);
    done += count;
    BAO_UNROLL
    for (int p = 0; p < NP; p++) {
      const F low = load_bits<F>(group[p]) * 256.0f, high = load_bits<F>(group[p] + 64) * 256.0f;
      BAO_UNROLL
      for (int r = 0; r < R; r++) {
        acc[r][2 * p] = fma(lower_half(halves[r * NP + p]), low, acc[r][2 * p]);
        acc[r][2 * p + 1] = fma(upper_half(halves[r * NP + p]), high, acc[r][2 * p + 1]);
      }
    }
  }
  if (!scales.row) return;
  BAO_UNROLL
  for (int r = 0; r < R; r++) {
    BAO_UNROLL_ALL
    for (int v = 0; v < 2 * NP; v++) acc[r][v] = acc[r][v] * scales.row[r * scales.row_stride];
  }
}
#endif

}  // namespace
}  // namespace bao::BAO_ISA
