// Tiles of `linear` for bfloat16 in AMX's matrix registers: up to 32 rows of x by two panels, or up to 16 rows by four; a step is 32 k.
// Registers 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 weights.
#pragma once

#include "linear_tile.h"
#include "matrix_registers.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMatrixTileRows = 2 * kMatrixRows;
constexpr int64_t kMatrixStepBytes = kMatrixDepth * kPanelColumns * 2;

static constexpr int64_t matrix_tile_rows(int64_t rows) { return rows > kMatrixRows ? kMatrixTileRows : max(rows, int64_t{1}); }
static constexpr int64_t matrix_tile_panels(int64_t tile_rows) { return tile_rows > kMatrixRows ? 2 : 4; }

#if defined(__AMX_BF16__)

// Several tiles share the weights: what each asks for of the next block, some lines of each panel in a step.
template <int NP>
class NextMatrixBlock {
 public:
  BAO_INLINE_MEMBER NextMatrixBlock(const Shared& source, int64_t steps)
      : lines_(source.next, source.stride), count_(source.lines), steps_(steps) {}
  BAO_INLINE_MEMBER int64_t until(int64_t) const { return steps_; }
  template <int Steps>
  BAO_INLINE_MEMBER void step() {
    for (int64_t line = 0; line < count_ * 64; line += 64) {
      BAO_UNROLL
      for (int p = 0; p < NP; p++) prefetch_far(lines_[p] + line);
    }
    lines_.advance(count_ * 64);
  }

 private:
  Places<char, NP> lines_;
  int64_t count_, steps_;
};

template <int NP>
BAO_INLINE Ahead<NP, kMatrixStepBytes, true> matrix_ahead(const PanelStream& source, const Panels& w, int64_t steps) {
  return {source, w, steps};
}
template <int NP>
BAO_INLINE NextMatrixBlock<NP> matrix_ahead(const Shared& source, const Panels&, int64_t steps) {
  return {source, steps};
}

// The sums of registers, by rows of 16 and panel.
template <bool Two, int NP, class Use>
BAO_INLINE void for_each_sum(Use use) {
  use(std::integral_constant<int, 0>{}, 0, 0);
  if constexpr (NP > 1) use(std::integral_constant<int, 1>{}, 0, 1);
  if constexpr (NP > 2) use(std::integral_constant<int, 2>{}, 0, 2);
  if constexpr (NP > 3) use(std::integral_constant<int, 3>{}, 0, 3);
  if constexpr (Two) use(std::integral_constant<int, 2>{}, 1, 0);
  if constexpr (Two && NP > 1) use(std::integral_constant<int, 3>{}, 1, 1);
}

static __attribute__((noinline)) void store_rows(const float* from, int64_t ld_from, const Sums& sums, int64_t rows, int64_t columns) {
  if (sums.columns < columns) return copy_columns(from, ld_from, sums, rows);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < columns; i += kLanes) {
      store(sums.to + r * sums.ld_to + i, load(from + r * ld_from + i) + load(sums.bias + i));
    }
  }
}

// `rows` rows by NP panels over `steps` steps; Two: more than 16 rows.
template <bool Two, int NP, class Source>
static __attribute__((noinline)) void matrix_tile(int64_t rows, const Rows& x, const Panels& w, int64_t steps, const Source& source,
                                                  const Sums& sums) {
  static_assert(!Two || NP <= 2);
  const int64_t stride = x.row_stride * 4, ld_from = sums.ld_from * 4;
  for_each_sum<Two, NP>([&](auto sum, int64_t row, int64_t panel) {
    if (sums.from) {
      load_matrix<sum()>(sums.from + row * kMatrixRows * sums.ld_from + panel * kPanelColumns, ld_from);
    } else {
      clear_matrix<sum()>();
    }
  });
  const char* upper = reinterpret_cast<const char*>(x.a);
  const char* lower = upper + kMatrixRows * stride;
  Places<char, NP> panels(w.data, w.stride);
  auto ahead = matrix_ahead<NP>(source, w, steps);
  for (int64_t s = 0; s < steps;) {
    const int64_t end = ahead.until(s);
    for (; s < end; s++) {
      ahead.template step<1>();
      load_matrix<4>(upper, stride);
      load_matrix<6>(panels[0], kMatrixRowBytes);
      multiply_matrices<0, 4, 6>();
      if constexpr (Two) {
        load_matrix<5>(lower, stride);
        multiply_matrices<2, 5, 6>();
        lower += kMatrixRowBytes;
      }
      if constexpr (NP > 1) {
        load_matrix<7>(panels[1], kMatrixRowBytes);
        multiply_matrices<1, 4, 7>();
        if constexpr (Two) multiply_matrices<3, 5, 7>();
      }
      if constexpr (NP > 2) {
        load_matrix<5>(panels[2], kMatrixRowBytes);
        multiply_matrices<2, 4, 5>();
      }
      if constexpr (NP > 3) {
        load_matrix<6>(panels[3], kMatrixRowBytes);
        multiply_matrices<3, 4, 6>();
      }
      upper += kMatrixRowBytes;
      panels.advance(kMatrixStepBytes);
    }
  }
  constexpr int64_t kColumns = NP * kPanelColumns;
  if (sums.columns >= kColumns && !sums.bias) {
    for_each_sum<Two, NP>([&](auto sum, int64_t row, int64_t panel) {
      store_matrix<sum()>(sums.to + row * kMatrixRows * sums.ld_to + panel * kPanelColumns, sums.ld_to * 4);
    });
    return;
  }
  alignas(64) float copy[(Two ? kMatrixTileRows : kMatrixRows) * kColumns];
  for_each_sum<Two, NP>([&](auto sum, int64_t row, int64_t panel) {
    store_matrix<sum()>(copy + row * kMatrixRows * kColumns + panel * kPanelColumns, kColumns * 4);
  });
  store_rows(copy, kColumns, sums, rows, kColumns);
}

// `k` k of some panels by `count` <= kMatrixTileRows rows.
template <class Source>
static void matrix_rows(MatrixRegisters& registers, int64_t count, const Rows& rows, const Panels& w, int64_t k, const Source& source,
                        const Sums& sums) {
  constexpr uint64_t kWeights = uint64_t{0x1010} << 48;
  const int64_t steps = ceil_div(k, kMatrixDepth);
  const auto columns = [&](int64_t panel) { return sums.columns_from(panel * kPanelColumns); };
  if (count > kMatrixRows) {
    // Sums and x of the first 16 rows, then of the others.
    registers.shape(kWeights | uint64_t(count - kMatrixRows) * 0x010001010000u | 0x001000001010u);
    for_each_tile<kMatrixTileRows, matrix_tile_panels(kMatrixTileRows)>(w, source, [&](auto panels, int64_t first, const auto& own) {
      matrix_tile<true, panels()>(count, rows, w.from(first), steps, own, columns(first));
    });
  } else {
    // Register 5 has weights here, too.
    registers.shape(kWeights | uint64_t{0x10} << 40 | uint64_t(count) * 0x0101010101u);
    for_each_tile<kMatrixRows, matrix_tile_panels(kMatrixRows)>(w, source, [&](auto panels, int64_t first, const auto& own) {
      matrix_tile<false, panels()>(count, rows, w.from(first), steps, own, columns(first));
    });
  }
}

#endif

}  // namespace
}  // namespace bao::BAO_ISA
