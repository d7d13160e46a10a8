// Products with weights of 8-bit floats in AMX's matrix registers: a group of k of a panel becomes bfloat16, exactly and without its scale,
// and stays in the first-level cache while rows of x pass, 32 at a time. Between the matrix instructions the next group is widened, and the
// sums of the rows before are multiplied by their scales and added up, in order of groups.
//
// Registers are used as in matrix_tile.h. One row takes the way of many, so that it has the same bits.
#pragma once

#include "matrix_tile.h"

namespace bao::BAO_ISA {
namespace {

// Panels that so many rows are multiplied with side by side, so that memory is read in several streams.
static constexpr int64_t fp8_matrix_panels(int64_t rows) { return rows <= kMatrixRows ? kMaxTilePanels : 1; }

#if defined(__AMX_BF16__)

constexpr int64_t kFp8MatrixRows = kGroupedRows;
constexpr int64_t kFp8GroupBytes = fp8_column_bytes(kFp8Group) * kFp8PanelColumns;
constexpr int64_t kFp8ScaleBytes = kFp8PanelColumns * 4;
// Two k, of which a matrix has a row.
constexpr int64_t kFp8PairBytes = 2 * kFp8PanelColumns;
// Of a group's matrices those of the first 16 columns, then the others.
constexpr int64_t kFp8MatrixBytes = kFp8Group / kMatrixDepth * kMatrixBytes;

// Groups of some panels in the order in which they are multiplied: one of each `at_once` panels, then the next of each.
class Fp8Groups {
 public:
  BAO_INLINE_MEMBER Fp8Groups(const Panels& w, int64_t k, int64_t at_once) : w_(w), k_(k), at_once_(at_once) {}

  BAO_INLINE_MEMBER bool ended() const { return first_ >= w_.count; }
  BAO_INLINE_MEMBER const char* data() const { return w_[first_ + panel_] + k0_ / kFp8Group * kFp8GroupBytes; }
  BAO_INLINE_MEMBER int64_t depth() const { return min(k_ - k0_, kFp8Group); }
  BAO_INLINE_MEMBER int64_t k0() const { return k0_; }
  BAO_INLINE_MEMBER int64_t first() const { return first_; }
  BAO_INLINE_MEMBER int64_t panel() const { return panel_; }
  BAO_INLINE_MEMBER int64_t side_by_side() const { return min(at_once_, w_.count - first_); }
  BAO_INLINE_MEMBER bool begins() const { return panel_ == 0 && k0_ == 0; }
  BAO_INLINE_MEMBER bool ends() const { return panel_ + 1 == side_by_side() && k0_ + kFp8Group >= k_; }
  BAO_INLINE_MEMBER void next() {
    if (++panel_ < side_by_side()) return;
    panel_ = 0;
    if ((k0_ += kFp8Group) < k_) return;
    k0_ = 0;
    first_ += at_once_;
  }

 private:
  Panels w_;
  int64_t k_, at_once_;
  int64_t first_ = 0, k0_ = 0, panel_ = 0;
};

// What is asked for while a group is widened: `lines` of each of some panels at a time.
struct Fp8Lines {
  const char* first;
  int64_t panels, lines;
};

// What to ask for ahead of its use: the next groups of panels side by side, all at once, so that several streams are under way. Near the end
// of these panels those of the next ones, or of what this thread takes then.
class Fp8Ahead {
 public:
  BAO_INLINE_MEMBER Fp8Ahead(const Panels& w, int64_t k, int64_t at_once, NextWeights last)
      : groups_(w, k, at_once), stride_(w.stride), k_(k), at_once_(at_once), last_(last) {}
  // While `group` is widened.
  BAO_INLINE_MEMBER Fp8Lines of(const Fp8Groups& group, int64_t pairs) {
    const int64_t panel = group.panel();
    if (panel == 0) next_row(group);
    const int64_t panels = group.side_by_side(), share = ceil_div(ceil_div(kFp8GroupBytes, 64), panels);
    return {row_ + panel * share * 64, panels, ceil_div(pairs, panels)};
  }

 private:
  BAO_INLINE_MEMBER void next_row(const Fp8Groups& group) {
    for (int64_t i = groups_.side_by_side(); i > 0; i--) groups_.next();
    if (groups_.ended() && !asked_) {
      asked_ = true;
      const char* following = last_.claim(last_.self);
      if (following) groups_ = Fp8Groups({following, stride_, INT64_MAX}, k_, at_once_);
    }
    row_ = groups_.ended() ? group.data() : groups_.data();
  }

  Fp8Groups groups_;
  int64_t stride_, k_, at_once_;
  NextWeights last_;
  const char* row_ = nullptr;
  bool asked_ = false;
};

// What is done between matrix instructions; `Pairs` pairs are widened behind each product.
template <int Pairs>
class Fp8Meanwhile {
 public:
  // Begins to widen a group's numbers. `far` is asked for meanwhile, and `following` near the end.
  BAO_INLINE_MEMBER void widen(const Fp8Groups& group, char* to, const Fp8Lines& far, int64_t stride, const char* following) {
    numbers_ = group.data() + kFp8ScaleBytes;
    to_ = to;
    pairs_ = group.depth() / 2;
    near_ = numbers_ + kNearBytes;
    far_ = far;
    stride_ = stride;
    following_ = following;
    for (int64_t line = 0; line < kFp8ScaleBytes; line += 64) prefetch_near(near_ - kFp8ScaleBytes + line);
    ask_far();
  }
  BAO_INLINE_MEMBER void finish_widening(int64_t depth) {
    if (pairs_ > 0 || depth % kMatrixDepth != 0) widen_rest(depth);
  }

  // Begins to multiply rows of sums and to add them up.
  BAO_INLINE_MEMBER void add(const float* sums, float* acc, int64_t rows, const char* scales) {
    sums_ = sums;
    acc_ = acc;
    rows_ = rows;
    low_ = load_bits<F>(scales);
    high_ = load_bits<F>(scales + 64);
  }
  BAO_INLINE_MEMBER void finish_adding() { add_rows(rows_); }

  BAO_INLINE_MEMBER void after_columns(int) const {}
  BAO_INLINE_MEMBER void after_product(int) {
    if (rows_ > 0) add_rows(rows_ > 1 ? 2 : 1);
    if (pairs_ >= Pairs) widen_pairs();
  }

 private:
  static constexpr int64_t kNearBytes = 1024;

  static BAO_INLINE_MEMBER void widen_pair(__m512i rows, char* to) {
    __m512i first, others;
    widen_to_bf16(rows, first, others);
    _mm512_store_si512(to, first);
    _mm512_store_si512(to + kFp8MatrixBytes, others);
  }
  BAO_INLINE_MEMBER void ask_far() {
    for (int64_t line = 0; line < far_.lines; line++) {
      for (int64_t panel = 0; panel < far_.panels; panel++) prefetch_far(far_.first + panel * stride_);
      far_.first += 64;
    }
  }
  BAO_INLINE_MEMBER void widen_pairs() {
    if (pairs_ * kFp8PairBytes == kNearBytes) near_ = following_;
    ask_far();
    BAO_UNROLL
    for (int64_t i = 0; i < Pairs; i++) {
      prefetch_near(near_ + i * 64);
      widen_pair(load_bits<__m512i>(numbers_ + i * kFp8PairBytes), to_ + i * kMatrixRowBytes);
    }
    numbers_ += Pairs * kFp8PairBytes;
    near_ += Pairs * 64;
    to_ += Pairs * kMatrixRowBytes;
    pairs_ -= Pairs;
  }
  __attribute__((noinline)) void widen_rest(int64_t depth) {
    for (; pairs_ > 0; pairs_--) {
      widen_pair(load_bits<__m512i>(numbers_), to_);
      numbers_ += kFp8PairBytes;
      to_ += kMatrixRowBytes;
    }
    if (depth % 2 != 0) {
      widen_pair(_mm512_zextsi256_si512(load_bits<__m256i>(numbers_)), to_);
      to_ += kMatrixRowBytes;
    }
    // Up to a whole matrix.
    for (int64_t pair = ceil_div(depth, 2); pair % kMatrixRows != 0; pair++) {
      std::memset(to_, 0, kMatrixRowBytes);
      std::memset(to_ + kFp8MatrixBytes, 0, kMatrixRowBytes);
      to_ += kMatrixRowBytes;
    }
  }
  BAO_INLINE_MEMBER void add_rows(int64_t count) {
    rows_ -= count;
    for (; count > 0; count--) {
      store(acc_, fma(load(sums_), low_, load(acc_)));
      store(acc_ + kLanes, fma(load(sums_ + kLanes), high_, load(acc_ + kLanes)));
      acc_ += kFp8PanelColumns;
      sums_ += kFp8PanelColumns;
    }
  }

  const char* numbers_ = nullptr;
  const char* near_ = nullptr;
  Fp8Lines far_{};
  int64_t stride_ = 0;
  const char* following_ = nullptr;
  char* to_ = nullptr;
  int64_t pairs_ = 0;
  const float* sums_ = nullptr;
  float* acc_ = nullptr;
  int64_t rows_ = 0;
  F low_{}, high_{};
};

// The sums of a group's 32 columns with 16 rows from x on and, if there are Two, with the 16 that begin `second` rows behind them.
template <bool Two, int Pairs>
BAO_INLINE void multiply_group(const char* x, int64_t second, int64_t stride, const char* matrices, int64_t steps, float* sums,
                               Fp8Meanwhile<Pairs>& meanwhile) {
  for_each_sum<Two, 2>([&](auto sum, int64_t, int64_t) { clear_matrix<sum()>(); });
  for (int64_t s = 0; s < steps; s++) {
    multiply_step<Two, 2>([&](int which) { return x + which * second * stride; }, stride,
                          [&](int column) { return matrices + column * kFp8MatrixBytes; }, meanwhile);
    x += kMatrixRowBytes;
    matrices += kMatrixBytes;
  }
  meanwhile.finish_adding();
  for_each_sum<Two, 2>([&](auto sum, int64_t which, int64_t column) {
    store_matrix<sum()>(sums + which * second * kFp8PanelColumns + column * kPanelColumns, kFp8PanelColumns * 4);
  });
}

// Some panels by `count` <= kFp8MatrixRows rows; Few: no more than 16.
template <bool Few, int Pairs>
static __attribute__((noinline)) void fp8_matrix_rows(int64_t count, const Rows& rows, const Panels& w, int64_t k, NextWeights last,
                                                      const Sums& sums) {
  alignas(64) float acc[(Few ? kMaxTilePanels * kMatrixRows : kFp8MatrixRows) * kFp8PanelColumns];
  alignas(64) float group_sums[kMatrixTileRows * kFp8PanelColumns];
  alignas(64) char matrices[2][2 * kFp8MatrixBytes];
  const int64_t stride = rows.row_stride * 4, at_once = fp8_matrix_panels(count);
  Fp8Ahead ahead(w, k, at_once, last);
  Fp8Meanwhile<Pairs> meanwhile;
  // The group after `group`, which is being widened.
  Fp8Groups group(w, k, at_once), next = group;
  const auto widen_next = [&](char* to) __attribute__((always_inline)) {
    const Fp8Groups own = next;
    next.next();
    const Fp8Lines far = ahead.of(own, Pairs);
    meanwhile.widen(own, to, far, w.stride, next.ended() ? far.first : next.data());
  };
  widen_next(matrices[0]);
  meanwhile.finish_widening(group.depth());
  for (int which = 0; !group.ended(); which ^= 1) {
    if (group.begins()) std::memset(acc, 0, static_cast<size_t>(group.side_by_side() * count * kFp8PanelColumns * 4));
    const Fp8Groups widened = next;
    if (!widened.ended()) widen_next(matrices[which ^ 1]);
    const int64_t steps = ceil_div(group.depth(), kMatrixDepth);
    const char* x = reinterpret_cast<const char*>(rows.a) + group.k0() * 2;
    float* own = acc + group.panel() * count * kFp8PanelColumns;
    if constexpr (Few) {
      multiply_group<false>(x, 0, stride, matrices[which], steps, group_sums, meanwhile);
      meanwhile.add(group_sums, own, count, group.data());
    } else {
      for (int64_t row = 0; row < count; row += kMatrixTileRows) {
        const int64_t left = count - row;
        // Where less than 16 rows are left, those before are taken again.
        if (left > kMatrixRows) {
          const int64_t second = min(kMatrixRows, left - kMatrixRows);
          multiply_group<true>(x + row * stride, second, stride, matrices[which], steps, group_sums, meanwhile);
          meanwhile.add(group_sums, own + row * kFp8PanelColumns, min(left, kMatrixTileRows), group.data());
        } else {
          multiply_group<false>(x + (count - kMatrixRows) * stride, 0, stride, matrices[which], steps, group_sums, meanwhile);
          meanwhile.add(group_sums + (kMatrixRows - left) * kFp8PanelColumns, own + row * kFp8PanelColumns, left, group.data());
        }
      }
    }
    if (!widened.ended()) meanwhile.finish_widening(widened.depth());
    if (group.ends()) {
      meanwhile.finish_adding();
      for (int64_t p = 0; p < group.side_by_side(); p++) {
        store_rows(acc + p * count * kFp8PanelColumns, kFp8PanelColumns, sums.columns_from((group.first() + p) * kFp8PanelColumns), count,
                   kFp8PanelColumns);
      }
    }
    group = widened;
  }
}

static void fp8_matrix_tiles(MatrixRegisters& registers, int64_t count, const Rows& rows, const Panels& w, int64_t k, NextWeights last,
                             const Sums& sums) {
  if (count <= kMatrixRows) {
    registers.shape(uint64_t{0x101010} << 40 | uint64_t(count) * 0x0101010101u);
    return fp8_matrix_rows<true, 8>(count, rows, w, k, last, sums);
  }
  registers.shape(0x1010101010101010u);
  if (count <= 3 * kMatrixRows) return fp8_matrix_rows<false, 4>(count, rows, w, k, last, sums);
  fp8_matrix_rows<false, 2>(count, rows, w, k, last, sums);
}

#endif

}  // namespace
}  // namespace bao::BAO_ISA
