// Instructions that C++ has no name for, as functions that the emulation has too. Fragment layouts: PTX ISA, "Matrix Fragments for
// mma.m16n8k16", "… mma.m16n8k32" and "ldmatrix". A register holds N neighbouring k: two of 16 bits (K = 16), four of 8 (K = 32). With g = lane / 4 and
// t = lane % 4 a lane holds of
//   A [16, K]: a[0] = (g, Nt..), a[1] = (g + 8, Nt..), a[2] = (g, Nt + K / 2..), a[3] = (g + 8, Nt + K / 2..)
//   B [K, 8]:  b[0] = (Nt.., g), b[1] = (Nt + K / 2.., g)
//   C [16, 8]: c[0..1] = (g, 2t..2t+1), c[2..3] = (g + 8, 2t..2t+1)
#pragma once

#include "float_types.h"
#include "platform.h"

namespace bao {

constexpr uint32_t kFullWarp = 0xffffffffu;

#if defined(__CUDACC__)

// c += A · B, in float32.
template <class T>
__device__ inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ inline void mma_m16n8k16<BFloat16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ inline void mma_m16n8k16<Half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += A · B of signed bytes, in 32 bits that wrap.
__device__ inline void mma_m16n8k32_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Two 8x8 matrices of 16-bit elements, transposed: lane 8 * i + r gives the address of row r of matrix i (lanes from 16 on: any), and
// gets of matrix i the elements (2t, g) and (2t + 1, g).
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row)));
}

// Four 8x8 matrices; a lane gets of matrix i the elements (g, 2t) and (g, 2t + 1).
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}

// Copies 16 bytes to shared memory behind the thread's back; where `valid` is false it writes zeros.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0));
}
// The same for 4 bytes.
__device__ inline void cp_async_4(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0));
}
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;"); }
template <int GroupsInFlight>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GroupsInFlight));
}

#else

template <class Sum>
struct MmaSlot {
  Sum (*c)[4];
  const uint32_t (*a)[4];
  const uint32_t (*b)[2];
};

template <class T>
float element(uint32_t packed, int i) {
  return to_float(T{static_cast<uint16_t>(packed >> (16 * i))});
}

template <>
inline float element<int8_t>(uint32_t packed, int i) {
  return static_cast<int8_t>(packed >> (8 * i));
}

// Elements of T, sums in Sum; products of bytes are exact in float.
template <class T, class Sum>
void mma(const char* what, Sum (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaSlot<Sum> slot{&c, &a, &b};
  emulation::warp_collective(what, kFullWarp, &slot, [](void* const* slots, uint32_t) BAO_UNCHECKED {
    constexpr int N = 4 / sizeof(T), K = 8 * N;
    float left[16][K], right[K][8];
    for (int lane = 0; lane < 32; lane++) {
      const auto* s = static_cast<const MmaSlot<Sum>*>(slots[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < N; i++) {
        left[g][N * t + i] = element<T>((*s->a)[0], i);
        left[g + 8][N * t + i] = element<T>((*s->a)[1], i);
        left[g][N * t + K / 2 + i] = element<T>((*s->a)[2], i);
        left[g + 8][N * t + K / 2 + i] = element<T>((*s->a)[3], i);
        right[N * t + i][g] = element<T>((*s->b)[0], i);
        right[N * t + K / 2 + i][g] = element<T>((*s->b)[1], i);
      }
    }
    float product[16][8] = {};
    for (int row = 0; row < 16; row++) {
      for (int k = 0; k < K; k++) {
        for (int column = 0; column < 8; column++) product[row][column] += left[row][k] * right[k][column];
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      auto* s = static_cast<MmaSlot<Sum>*>(slots[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 2; i++) {
        (*s->c)[i] += static_cast<Sum>(product[g][2 * t + i]);
        (*s->c)[2 + i] += static_cast<Sum>(product[g + 8][2 * t + i]);
      }
    }
  });
}

template <class T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma<T>("mma.m16n8k16", c, a, b);
}

inline void mma_m16n8k32_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma<int8_t>("mma.m16n8k32", c, a, b);
}

template <int N>
struct LdmatrixSlot {
  uint32_t (*r)[N];
  const uint16_t* row;
};

template <int N, bool Transposed>
void ldmatrix(const char* what, uint32_t (&r)[N], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulation::fault(std::string(what) + " of a row that is not aligned to 16 bytes");
  LdmatrixSlot<N> slot{&r, static_cast<const uint16_t*>(row)};
  emulation::warp_collective(what, kFullWarp, &slot, [](void* const* slots, uint32_t) BAO_UNCHECKED {
    for (unsigned i = 0; i < N; i++) {
      uint16_t matrix[8][8];
      for (unsigned r = 0; r < 8; r++) {
        const unsigned lane = 8 * i + r;
        emulation::read_row(matrix[r], static_cast<const LdmatrixSlot<N>*>(slots[lane])->row, sizeof(matrix[r]), lane);
      }
      for (unsigned lane = 0; lane < 32; lane++) {
        const unsigned g = lane / 4, t = lane % 4;
        const uint32_t low = Transposed ? matrix[2 * t][g] : matrix[g][2 * t];
        const uint32_t high = Transposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
        (*static_cast<LdmatrixSlot<N>*>(slots[lane])->r)[i] = low | high << 16;
      }
    }
  });
}

inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { ldmatrix<2, true>("ldmatrix.x2.trans", r, row); }
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { ldmatrix<4, false>("ldmatrix.x4", r, row); }

template <unsigned Bytes>
void cp_async(void* shared, const void* global, bool valid) {
  if (reinterpret_cast<uintptr_t>(shared) % Bytes != 0 || reinterpret_cast<uintptr_t>(global) % Bytes != 0) {
    emulation::fault("cp.async of " + std::to_string(Bytes) + " bytes that are not aligned to " + std::to_string(Bytes));
  }
  emulation::async_copy(shared, global, Bytes, valid ? Bytes : 0);
}
inline void cp_async_16(void* shared, const void* global, bool valid) { cp_async<16>(shared, global, valid); }
inline void cp_async_4(void* shared, const void* global, bool valid) { cp_async<4>(shared, global, valid); }
inline void cp_async_commit() { emulation::async_commit(); }
template <int GroupsInFlight>
void cp_async_wait() {
  emulation::async_wait(GroupsInFlight);
}

#endif

}  // namespace bao
