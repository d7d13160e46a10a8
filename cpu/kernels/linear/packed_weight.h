// How weights lie in panels of kPanelColumns output features (see kernels.h) in this instruction set.
#pragma once

#include "../float8.h"
#include "../halves.h"

namespace bao::BAO_ISA {
namespace {

// A half that has to be multiplied by a power of two, which its column's numbers, or its row's, share.
struct ScaledHalf {
  uint16_t bits;
};

// Instruction sets that multiply halves keep both types of 16 bits as such, but for bfloat16 where there are matrix registers.
template <class W>
struct PackedTypeOf {
  using type = W;
};
#if defined(__AMX_BF16__)
constexpr bool kHasMatrices = true;
#else
constexpr bool kHasMatrices = false;
#endif
#if defined(__AVX512FP16__)
template <>
struct PackedTypeOf<BFloat16> {
  using type = std::conditional_t<kHasMatrices, BFloat16, ScaledHalf>;
};
template <>
struct PackedTypeOf<Float16> {
  using type = ScaledHalf;
};
#endif
template <class W>
using PackedType = typename PackedTypeOf<W>::type;

// Whether matrix registers multiply it.
template <class P>
constexpr bool uses_matrices = kHasMatrices && (std::is_same_v<P, BFloat16> || std::is_same_v<P, Float8E4M3>);
// And whether it must become bfloat16 first.
template <class P>
constexpr bool widens_to_matrices = kHasMatrices && std::is_same_v<P, Float8E4M3>;

// Whether two numbers of a column, of an even and an odd k, lie together.
template <class P>
constexpr bool kInPairs = std::is_same_v<P, BFloat16> || std::is_same_v<P, ScaledHalf>;

// k of bfloat16 in a row of a matrix register.
constexpr int64_t kMatrixDepth = 32;

template <class P>
constexpr int64_t panel_columns = std::is_same_v<P, Float8E4M3> ? kFp8PanelColumns : kPanelColumns;
// Bytes of a panel's first k; of 8-bit floats whole groups, or all. A panel of scaled halves ends with a float for each column: what its
// numbers are to be multiplied by.
template <class P>
constexpr int64_t panel_number_bytes(int64_t k) {
  if (std::is_same_v<P, Float8E4M3>) return fp8_column_bytes(k) * kFp8PanelColumns;
  return round_up(k, uses_matrices<P> ? kMatrixDepth : 2) * kPanelColumns * static_cast<int64_t>(sizeof(P));
}
template <class P>
constexpr int64_t panel_bytes(int64_t k) {
  return panel_number_bytes<P>(k) + (std::is_same_v<P, ScaledHalf> ? kPanelColumns * 4 : 0);
}

// The greatest magnitude; numbers that are not numbers don't count.
template <class T>
BAO_INLINE float greatest_magnitude(const T* values, int64_t n) {
  F greatest{};
  const auto take = [&](F v) __attribute__((always_inline)) { greatest = max(as_float(as_bits(v) & 0x7fffffffu), greatest); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) take(load(values + i));
  if (i < n) take(load_n(values + i, n - i));
  return reduce_max(greatest);
}

template <class S, class D>
BAO_INLINE void convert_row(const S* source, float scale, D* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(source + i) * scale);
  if (i < n) store_n(out + i, load_n(source + i, n - i) * scale, n - i);
}

template <class S, class D>
BAO_INLINE void convert_row(const S* source, D* out, int64_t n) {
  if constexpr (std::is_same_v<S, D>) {
    std::memcpy(out, source, static_cast<size_t>(n) * sizeof(S));
  } else {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, load(source + i));
    if (i < n) store_n(out + i, load_n(source + i, n - i), n - i);
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
