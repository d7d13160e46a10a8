// Attention over bfloat16 in AMX's matrix registers: products, and how keys and values are laid out for them.
//
// Whatever is multiplied lies in tiles of a register's size, [16 rows][32] on the left and [16 pairs][16 columns][2] on the right; those of
// one product after the other, so many bytes apart, are neighbours.
#pragma once

#include "attention_tile.h"
#include "../matrix_registers.h"

#if defined(__AMX_BF16__)
namespace bao::BAO_ISA {
namespace {

// What a product takes at once: dimensions of a score, keys of a value.
constexpr int64_t kStep = kMatrixRowBytes / static_cast<int64_t>(sizeof(BFloat16));
// Keys of a score, or dimensions of a value, in a register.
constexpr int64_t kColumns = 16;
static_assert(kStep == 2 * kGroup && kColumns == kGroup && kColumns == kLanes);

// Nothing to ask for between matrix instructions.
struct Spaces {
  BAO_INLINE_MEMBER void after_columns(int) const { space_out(); }
  BAO_INLINE_MEMBER void after_product(int) const {
    space_out();
    space_out();
  }
};

// out[16 rows, or Two times as many][N times 16 columns], ld floats apart, = (fresh ? 0 : out) + a · b over some steps; the next rows of a and
// the next columns of b are so many bytes behind the ones before.
template <bool Two, int N>
static __attribute__((noinline)) void multiply_tiles(const char* a, int64_t next_rows, const char* b, int64_t next_columns, int64_t steps,
                                                     bool fresh, float* out, int64_t ld) {
  static_assert(!Two || N <= 2);
  for_each_sum<Two, N>([&](auto sum, int64_t row, int64_t column) {
    if (fresh) {
      clear_matrix<sum()>();
    } else {
      load_matrix<sum()>(out + row * kMatrixRows * ld + column * kColumns, ld * 4);
      space_out();
    }
  });
  for (const char* end = a + steps * kMatrixBytes; a < end; a += kMatrixBytes, b += kMatrixBytes) {
    multiply_step<Two, N>([&](int which) { return a + which * next_rows; }, kMatrixRowBytes, [&](int column) { return b + column * next_columns; },
                          Spaces{});
  }
  for_each_sum<Two, N>([&](auto sum, int64_t row, int64_t column) {
    store_matrix<sum()>(out + row * kMatrixRows * ld + column * kColumns, ld * 4);
  });
}

BAO_INLINE void store_line(char* p, __m512i line) { _mm512_store_si512(p, line); }
BAO_INLINE __m512i two_halves(const void* low, const void* high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load_bits<__m256i>(low)), load_bits<__m256i>(high), 1);
}
// 16 numbers and 16 others become pairs of one and another.
BAO_INLINE __m512i pair_halves(__m512i halves) {
  alignas(64) static constexpr uint16_t kPairs[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(load_bits<__m512i>(kPairs), halves);
}
// The same of the first half, or of the second, of two times 32 numbers.
template <bool Second>
BAO_INLINE __m512i pair_numbers(__m512i a, __m512i b) {
  constexpr int kFirst = Second ? 16 : 0;
  alignas(64) static constexpr uint16_t kPairs[32] = {
      kFirst + 0,  kFirst + 32, kFirst + 1,  kFirst + 33, kFirst + 2,  kFirst + 34, kFirst + 3,  kFirst + 35, kFirst + 4,  kFirst + 36, kFirst + 5,
      kFirst + 37, kFirst + 6,  kFirst + 38, kFirst + 7,  kFirst + 39, kFirst + 8,  kFirst + 40, kFirst + 9,  kFirst + 41, kFirst + 10, kFirst + 42,
      kFirst + 11, kFirst + 43, kFirst + 12, kFirst + 44, kFirst + 13, kFirst + 45, kFirst + 14, kFirst + 46, kFirst + 15, kFirst + 47};
  return _mm512_permutex2var_epi16(a, load_bits<__m512i>(kPairs), b);
}

// Up to kStep dimensions of a group's keys, ld apart, to a tile.
template <bool Dense>
BAO_INLINE void stage_keys(const BFloat16* keys, int64_t ld, int64_t dims, char* out, const BFloat16* soon, const BFloat16* later) {
  if constexpr (Dense) ld = kGroup;
  const auto stage = [&](int64_t d) __attribute__((always_inline)) {
    prefetch_near(soon + d * kGroup);
    prefetch_far(later + d * kGroup);
    const BFloat16* pair = keys + d * ld;
    store_line(out + d * kGroup * 2, pair_halves(Dense ? load_bits<__m512i>(pair) : two_halves(pair, pair + ld)));
  };
  if (dims >= kStep) {
    BAO_UNROLL
    for (int64_t d = 0; d < kStep; d += 2) stage(d);
    return;
  }
  int64_t d = 0;
  for (; d + 2 <= dims; d += 2) stage(d);
  if (d < dims) store_line(out + d * kGroup * 2, pair_halves(_mm512_castsi256_si512(load_bits<__m256i>(keys + d * ld))));
  for (d = round_up(dims, 2); d < kStep; d += 2) store_line(out + d * kGroup * 2, __m512i{});
}

// Watches for numbers that are infinite or none.
class FiniteWatch {
 public:
  BAO_INLINE_MEMBER void see(__m512i numbers) {
    // Where all bits of the exponent are set, one more at its end changes the sign.
    const __m512i next = _mm512_add_epi16(numbers, _mm512_set1_epi16(0x80));
    // changes | (numbers ^ next)
    changes_ = _mm512_ternarylogic_epi32(changes_, numbers, next, 0xf6);
  }
  BAO_INLINE_MEMBER bool all_finite() const { return _mm512_movepi16_mask(changes_) == 0; }

  static __mmask32 finite(__m512i numbers) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    return _mm512_cmpneq_epi16_mask(_mm512_and_si512(numbers, exponent), exponent);
  }

 private:
  __m512i changes_ = _mm512_setzero_si512();
};

// Zeros in place of what is not finite.
static __attribute__((noinline)) void drop_others(char* tiles, int64_t count) {
  for (char* line = tiles; line < tiles + count * kMatrixBytes; line += 64) {
    const auto numbers = load_bits<__m512i>(line);
    store_line(line, _mm512_maskz_mov_epi16(FiniteWatch::finite(numbers), numbers));
  }
}

// Two keys' values of a tile, the number-th such pair, to a line for each 16 columns; zeros where there are none.
BAO_INLINE void stage_pair(const Groups<BFloat16>& values, int64_t number, int64_t dim, char* line, int64_t next_columns,
                           const Coming<BFloat16>& coming, FiniteWatch& watch) {
  const int64_t g = number / (kGroup / 2), at = number % (kGroup / 2) * 2 * dim;
  if (!values.of[g]) {
    for (int64_t column = 0; column < dim; column += kColumns, line += next_columns) store_line(line, __m512i{});
    return;
  }
  const BFloat16 *const pair = values.of[g] + at, *const soon = coming.soon.of[g] + at, *const later = coming.later.of[g] + at;
  int64_t column = 0;
  const BFloat16 *const other = pair + dim, *const soon_other = soon + dim, *const later_other = later + dim;
  for (; column + 2 * kColumns <= dim; column += 2 * kColumns, line += 2 * next_columns) {
    prefetch_near(soon + column);
    prefetch_near(soon_other + column);
    prefetch_far(later + column);
    prefetch_far(later_other + column);
    const auto a = load_bits<__m512i>(pair + column), b = load_bits<__m512i>(other + column);
    watch.see(a);
    watch.see(b);
    store_line(line, pair_numbers<false>(a, b));
    store_line(line + next_columns, pair_numbers<true>(a, b));
  }
  if (column < dim) {
    prefetch_near(soon + column);
    prefetch_far(later + column);
    const __m512i halves = two_halves(pair + column, other + column);
    watch.see(halves);
    store_line(line, pair_halves(halves));
  }
}

// scores[up to 16 rows][kKeyTile], ld apart, = queries · keys of a tile. What is staged of a step is multiplied while the next one is, so that
// its stores are done; `staged` has room for two steps.
template <bool Dense>
static __attribute__((noinline)) void score_few_rows(const char* queries, const Tile<BFloat16>& tile, int64_t head_dim, char* staged,
                                                     float* scores, int64_t ld, const Coming<BFloat16>& coming) {
  for_each_sum<false, 4>([](auto sum, int64_t, int64_t) { clear_matrix<sum()>(); });
  for (int64_t d = 0; d < head_dim + kStep; d += kStep) {
    char* now = staged + d / kStep % 2 * 4 * kMatrixBytes;
    const char* before = staged + (d / kStep + 1) % 2 * 4 * kMatrixBytes;
    if (d > 0) load_matrix<4>(queries + (d / kStep - 1) * kMatrixBytes, kMatrixRowBytes);
    for_each_sum<false, 4>([&](auto sum, int64_t, int64_t g) __attribute__((always_inline)) {
      if (d < head_dim && tile.keys.of[g]) {
        stage_keys<Dense>(tile.keys.of[g] + d * tile.ld_keys, tile.ld_keys, head_dim - d, now + g * kMatrixBytes,
                          coming.soon.of[g] + d * kGroup, coming.later.of[g] + d * kGroup);
      }
      if (d > 0) {
        load_matrix<6 + sum() % 2>(before + g * kMatrixBytes, kMatrixRowBytes);
        multiply_matrices<sum(), 4, 6 + sum() % 2>();
      }
    });
  }
  for_each_sum<false, 4>([&](auto sum, int64_t, int64_t g) { store_matrix<sum()>(scores + g * kColumns, ld * 4); });
}

// out[up to 16 rows][dim] = probabilities · values, over some steps of a range; in the same way. `staged` has room for all columns of two steps.
// False where a value is not finite, which counts as 0.
static __attribute__((noinline)) bool add_values_of_few_rows(const char* probabilities, const RangeTiles<BFloat16>& range,
                                                             const Groups<BFloat16>* areas, int64_t dim, char* staged, float* out) {
  const int64_t steps = (range.end_tile() - range.first_tile()) * (kKeyTile / kStep), panels = dim / kColumns;
  const Tile<BFloat16>* tiles = range.of + range.first_tile();
  bool finite = true;
  for (int64_t step = 0; step <= steps; step++) {
    char* now = staged + step % 2 * panels * kMatrixBytes;
    const char* before = staged + (step + 1) % 2 * panels * kMatrixBytes;
    // Of the step before.
    if (step > 0) load_matrix<4>(probabilities + (step - 1) * kMatrixBytes, kMatrixRowBytes);
    const auto multiply = [&](int64_t panel) __attribute__((always_inline)) {
      if (step == 0) return;
      if (step == 1) {
        clear_matrix<0>();
      } else {
        load_matrix<0>(out + panel * kColumns, dim * 4);
      }
      load_matrix<6>(before + panel * kMatrixBytes, kMatrixRowBytes);
      multiply_matrices<0, 4, 6>();
      store_matrix<0>(out + panel * kColumns, dim * 4);
    };
    if (step == steps) {
      for (int64_t panel = 0; panel < panels; panel++) multiply(panel);
      break;
    }
    FiniteWatch watch;
    const int64_t tile = step / 2;
    constexpr int64_t kPairs = kStep / 2;
    for (int64_t pair = 0; pair < kPairs; pair++) {
      stage_pair(tiles[tile].values, step % 2 * kPairs + pair, dim, now + pair * kMatrixRowBytes, kMatrixBytes, {areas[tile + 1], areas[tile + 2]},
                 watch);
      // At even distances.
      if ((pair + 1) * panels / kPairs > pair * panels / kPairs) multiply(pair * panels / kPairs);
    }
    if (watch.all_finite()) continue;
    finite = false;
    drop_others(now, panels);
  }
  return finite;
}

// 2^x, to 3e-6 of it; exactly 1 for 0, 0 for numbers from where a float32 has none on.
BAO_INLINE F exp2(F x) {
  const F r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  F p = set1(0x1.b7f730f5690b1p-7f);
  p = fma(p, r, set1(0x1.abf868c320aa9p-5f));
  p = fma(p, r, set1(0x1.ee2450e569d7fp-3f));
  p = fma(p, r, set1(0x1.62d6c61f00a97p-1f));
  p = fma(p, r, set1(1.0f));
  return _mm512_scalef_ps(p, x);
}

}  // namespace
}  // namespace bao::BAO_ISA
#endif
