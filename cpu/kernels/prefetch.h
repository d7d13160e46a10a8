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

}  // namespace
}  // namespace bao::BAO_ISA
