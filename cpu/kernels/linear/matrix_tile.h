// Tiles of `linear` for bfloat16 in AMX's matrix registers: up to 32 rows of x by two panels, or up to 16 rows by four; a step is 32 k.
// Registers 0 to 3 are sums, 4 rows of x, 5 more of them or weights, 6 and 7 weights.
#pragma once

#include "matrix_vector_tile.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMatrixTileRows = 2 * kMatrixRows;
constexpr int64_t kMatrixStepBytes = kMatrixDepth * kPanelColumns * 2;

static constexpr int64_t matrix_tile_rows(int64_t rows) { return rows > kMatrixRows ? kMatrixTileRows : max(rows, int64_t{1}); }
static constexpr int64_t matrix_tile_panels(int64_t tile_rows) {
  return tile_rows <= kMatrixVectorRows ? matrix_vector_panels(tile_rows) : tile_rows <= kMatrixRows ? 4 : 2;
}

#if defined(__AMX_BF16__)

// What comes between the instructions of a step, where weights stream by: asking for later ones.
template <int NP>
class MatrixStream {
 public:
  BAO_INLINE_MEMBER MatrixStream(const PanelStream& source, const Panels& w, const Rows&, int64_t steps) : ahead_(source, w, steps) {}
  BAO_INLINE_MEMBER int64_t until(int64_t done) { return ahead_.until(done); }
  BAO_INLINE_MEMBER void after_columns(int panel) const { ahead_.ask_near(panel); }
  BAO_INLINE_MEMBER void after_product(int) const {
    space_out();
    space_out();
  }
  BAO_INLINE_MEMBER void advance() { ahead_.template advance<1>(); }

 private:
  Ahead<NP, kMatrixStepBytes, false, 4 * kMatrixStepBytes> ahead_;
};

// And where tiles share weights that are in the second-level cache, as x is: asking for x, and for a part of the next block.
template <int NP>
class MatrixShare {
  static constexpr int64_t kAheadBytes = 2 * kMatrixRowBytes;
  static constexpr int kLines = 8;

 public:
  BAO_INLINE_MEMBER MatrixShare(const Shared& source, const Panels&, const Rows& x, int64_t steps)
      : x_(reinterpret_cast<const char*>(x.a) + kAheadBytes),
        stride_(x.row_stride * 4),
        next_(source.next, source.stride),
        count_(source.lines),
        steps_(steps) {}
  BAO_INLINE_MEMBER int64_t until(int64_t) const { return steps_; }
  BAO_INLINE_MEMBER void after_columns(int panel) const {
    for (int64_t line = 0; line < count_; line++) prefetch_far(next_[panel] + line * 64);
    space_out();
  }
  BAO_INLINE_MEMBER void after_product(int product) const {
    BAO_UNROLL
    for (int line = 0; line < kLines; line++) prefetch_near(x_ + (product * kLines + line) * stride_);
  }
  BAO_INLINE_MEMBER void advance() {
    x_ += kMatrixRowBytes;
    next_.advance(count_ * 64);
  }

 private:
  const char* x_;
  int64_t stride_;
  Places<char, NP> next_;
  int64_t count_, steps_;
};

template <int NP, class Source>
using MatrixBetween = std::conditional_t<std::is_same_v<Source, Shared>, MatrixShare<NP>, MatrixStream<NP>>;

static __attribute__((noinline)) void store_rows(const float* from, int64_t ld_from, const Sums& sums, int64_t rows, int64_t columns) {
  if (sums.columns < columns) return copy_columns(from, ld_from, sums, rows);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < columns; i += kLanes) {
      const F sum = load(from + r * ld_from + i);
      store(sums.to + r * sums.ld_to + i, sums.bias ? sum + load(sums.bias + i) : sum);
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
  Places<char, NP> panels(w.data, w.stride);
  MatrixBetween<NP, Source> between(source, w, x, steps);
  for (int64_t s = 0; s < steps;) {
    const int64_t end = between.until(s);
    for (; s < end; s++) {
      // Where the sums go has been elsewhere since, or is new: fetched meanwhile, the stores don't wait.
      if (s < rows) {
        BAO_UNROLL
        for (int p = 0; p < NP; p++) prefetch_for_write(sums.to + s * sums.ld_to + p * kPanelColumns);
      }
      multiply_step<Two, NP>([&](int which) { return upper + which * kMatrixRows * stride; }, stride,
                             [&](int panel) { return panels[panel]; }, between);
      upper += kMatrixRowBytes;
      panels.advance(kMatrixStepBytes);
      between.advance();
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
  if (count <= kMatrixVectorRows) {
    const NoDenormals none;
    matrix_vector_rows<kMatrixVectorRows>(count, rows, w, steps, source, sums);
  } else if (count > kMatrixRows) {
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
