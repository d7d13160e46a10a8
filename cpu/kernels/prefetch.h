// Asking for memory ahead of its use.
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {
namespace {

BAO_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
BAO_INLINE void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
// A line that will be written comes for this core alone, so that it need not be asked for again. (GCC has the instruction behind a
// flag of its own; processors without it take it for none.)
BAO_INLINE void prefetch_for_write(const void* p) {
#if defined(__AVX2__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1, 3);
#endif
}

// How far ahead of its use a stream is asked for: into the second-level cache, where more requests can wait than in the first,
// and from there into the first.
constexpr int64_t kFarBytes = 16384, kNearBytes = 2048;

// Weights that are used once, in pieces that lie apart: near the end of one, the next is what comes `far` bytes later.
struct Streamed {
  int64_t far = kFarBytes;
  int64_t near = kNearBytes;

  // For `Bytes` bytes at p, and at as many rows as there are, `Stride` bytes apart.
  template <int64_t Bytes, int Rows = 1, int64_t Stride = 0>
  BAO_INLINE_MEMBER void step(const void* p) const {
    BAO_UNROLL
    for (int row = 0; row < Rows; row++) {
      BAO_UNROLL
      for (int64_t line = row * Stride; line < row * Stride + Bytes; line += 64) {
        prefetch_far(static_cast<const char*>(p) + far + line);
        prefetch_near(static_cast<const char*>(p) + near + line);
      }
    }
  }

  // For the last kFarBytes of a piece, from p on; the next piece begins at `next` (nullptr: there is none).
  static Streamed towards(const void* next, const void* p) {
    return {next ? static_cast<const char*>(next) - static_cast<const char*>(p) : 0, 0};
  }
};

}  // namespace
}  // namespace bao::BAO_ISA
