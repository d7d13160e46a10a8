// Asking for memory ahead of its use.
#pragma once

#include "simd.h"

namespace bao::BAO_ISA {
namespace {

BAO_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
BAO_INLINE void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }

// For `Bytes` bytes of a stream that is read once, at p now: far ahead into the second-level cache, where more requests can wait
// than in the first, and from there into the first.
template <int64_t Bytes>
BAO_INLINE void prefetch_stream(const void* p) {
  constexpr int64_t kFarBytes = 16384, kNearBytes = 2048;
  BAO_UNROLL
  for (int64_t line = 0; line < Bytes; line += 64) {
    prefetch_far(static_cast<const char*>(p) + kFarBytes + line);
    prefetch_near(static_cast<const char*>(p) + kNearBytes + line);
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
