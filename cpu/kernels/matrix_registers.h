// The matrix registers of AMX: eight of them, each of 16 rows of 64 bytes at most.
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMatrixRows = 16, kMatrixRowBytes = 64;
constexpr int64_t kMatrixBytes = kMatrixRows * kMatrixRowBytes;

#if defined(__AMX_BF16__)

template <int Register>
BAO_INLINE void load_matrix(const void* rows, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(Register) : "memory");
}
template <int Register>
BAO_INLINE void store_matrix(void* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(Register) : "memory");
}
template <int Register>
BAO_INLINE void clear_matrix() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Register));
}
// sums [rows][16] float32 += a [rows][32] · b [16][16][2], bfloat16. Even and odd k are added by themselves over the 32 of a row,
// then both sums to the one before; denormal numbers count as 0.
template <int Sums, int A, int B>
BAO_INLINE void multiply_matrices() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(A), "i"(B));
}
// sums [rows][16] int32 += a [rows][64] · b [16][16][4], signed bytes.
template <int Sums, int A, int B>
BAO_INLINE void multiply_byte_matrices() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(A), "i"(B));
}

// Where the core's other thread is busy, matrix instructions that follow one another directly take up to twice as long: others come
// between them, if only these.
BAO_INLINE void space_out() { asm volatile("nop\n\tnop\n\tnop\n\tnop"); }

// Denormal numbers count as 0 while an object lives, as they do in matrix registers.
class NoDenormals {
 public:
  BAO_INLINE_MEMBER NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  BAO_INLINE_MEMBER ~NoDenormals() { _mm_setcsr(before_); }
  NoDenormals(const NoDenormals&) = delete;
  NoDenormals& operator=(const NoDenormals&) = delete;

 private:
  unsigned before_;
};

// use(constant) for 0 to N - 1.
template <int N, class Use>
BAO_INLINE void with_each(Use use) {
  if constexpr (N > 1) with_each<N - 1>(use);
  use(std::integral_constant<int, N - 1>{});
}

// Where registers 0 to 3 are sums, of up to 16 rows by N columns of 16, or of Two such rows by N <= 2: use(register, its rows, its column).
template <bool Two, int N, class Use>
BAO_INLINE void for_each_sum(Use use) {
  with_each<(Two ? 2 : 1) * N>([&](auto i) {
    constexpr int kRows = i() / N, kColumn = i() % N;
    use(std::integral_constant<int, 2 * kRows + kColumn>{}, kRows, kColumn);
  });
}

// A step of such sums: one more matrix of 16 rows, and of the 16 behind them if there are Two, by one of each column. Matrices are where
// `rows(which 16)` and `columns(which)` say, rows of the former `stride` bytes apart; `between` has what comes between the instructions.
template <bool Two, int N, class RowsAt, class ColumnsAt, class Between>
BAO_INLINE void multiply_step(RowsAt rows, int64_t stride, ColumnsAt columns, Between&& between) {
  load_matrix<4>(rows(0), stride);
  space_out();
  if constexpr (Two) {
    load_matrix<5>(rows(1), stride);
    space_out();
  }
  with_each<N>([&](auto column) __attribute__((always_inline)) {
    constexpr int kColumn = column(), kRegister = Two ? 6 + kColumn : 5 + kColumn % 3;
    load_matrix<kRegister>(columns(kColumn), kMatrixRowBytes);
    between.after_columns(kColumn);
    multiply_matrices<kColumn, 4, kRegister>();
    between.after_product(Two ? 2 * kColumn : kColumn);
    if constexpr (Two) {
      multiply_matrices<2 + kColumn, 5, kRegister>();
      between.after_product(2 * kColumn + 1);
    }
  });
}

// The even and the odd ones of 16 pairs of bfloat16.
BAO_INLINE void split(U pairs, F& even, F& odd) {
  even = as_float(pairs << 16);
  odd = as_float(pairs & 0xffff0000u);
}

// Rows of the eight registers. While an object lives the thread may use them; afterwards they take no part in what the system
// saves of a thread.
class MatrixRegisters {
 public:
  MatrixRegisters() = default;
  MatrixRegisters(const MatrixRegisters&) = delete;
  MatrixRegisters& operator=(const MatrixRegisters&) = delete;
  BAO_INLINE_MEMBER ~MatrixRegisters() {
    if (shape_ != 0) asm volatile("tilerelease");
  }

  // The least significant byte is register 0's; their contents are lost where this is not what it was.
  BAO_INLINE_MEMBER void shape(uint64_t rows) {
    if (rows == shape_) return;
    shape_ = rows;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; i++) config.row_bytes[i] = kMatrixRowBytes;
    std::memcpy(config.rows, &rows, sizeof(rows));
    asm volatile("ldtilecfg %0" : : "m"(config));
  }

 private:
  uint64_t shape_ = 0;
};

#else

struct MatrixRegisters {};

#endif

}  // namespace
}  // namespace bao::BAO_ISA
