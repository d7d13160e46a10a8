// One vector type per instruction set, on the vector extensions of GCC and Clang; intrinsics only where these have no word for it.
//
// Files in cpu/kernels are compiled several times into one library. Everything in them must live in BAO_ISA's namespace and
// nothing may come from headers that define inline functions (the linker keeps one copy of such a function, perhaps one with
// instructions that the processor lacks): no C++ standard library here but <cstdint>, <cstring> and <type_traits>.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "../kernels.h"
#include "isa.h"

#define BAO_INLINE static inline __attribute__((always_inline))
#define BAO_INLINE_MEMBER inline __attribute__((always_inline))
#define BAO_UNROLL _Pragma("GCC unroll 16")
#define BAO_UNROLL_ALL _Pragma("GCC unroll 32")

namespace bao::BAO_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float F __attribute__((vector_size(kLanes * 4)));
typedef int32_t I __attribute__((vector_size(kLanes * 4)));
typedef uint32_t U __attribute__((vector_size(kLanes * 4)));
typedef uint16_t H __attribute__((vector_size(kLanes * 2)));
typedef uint8_t B __attribute__((vector_size(kLanes)));

// The storage types of weights and cache, beside 8-bit floats (float8.h).
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class V, class T>
BAO_INLINE V load_bits(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
BAO_INLINE F set1(float x) { return x - F{}; }
BAO_INLINE I set1(int32_t x) { return x - I{}; }

BAO_INLINE F load(const float* p) { return load_bits<F>(p); }
BAO_INLINE void store(float* p, F v) { std::memcpy(p, &v, sizeof(F)); }
// The first n lanes; the rest is 0, or stays as it is.
BAO_INLINE F load_n(const float* p, int64_t n) {
  F v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
}
BAO_INLINE void store_n(float* p, F v, int64_t n) { std::memcpy(p, &v, static_cast<size_t>(n) * 4); }

BAO_INLINE F fma(F a, F b, F c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
// acc += a * b in a register tile. Where a tile takes all registers the instruction is written out: GCC otherwise lets the sum
// replace an operand, moves accumulators around and spills them.
BAO_INLINE void accumulate(F& acc, F a, F b) {
#if defined(__AVX512F__)
  asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#elif defined(__AVX2__)
  asm("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
#else
  acc = fma(a, b, acc);
#endif
}
BAO_INLINE F max(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
BAO_INLINE F min(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
BAO_INLINE float max(float a, float b) { return a > b ? a : b; }
BAO_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// Lanes are paired halves against halves: one fixed order.
#if defined(__AVX2__)
#define BAO_REDUCE(name, combine)                                                             \
  BAO_INLINE float name(__m256 v) {                                                           \
    const __m128 half = combine##_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); \
    const __m128 pair = combine##_ps(half, _mm_movehl_ps(half, half));                        \
    return combine##_ss(pair, _mm_movehdup_ps(pair))[0];                                      \
  }
BAO_REDUCE(reduce_add, _mm_add)
BAO_REDUCE(reduce_max, _mm_max)
#undef BAO_REDUCE
#else
BAO_INLINE float reduce_add(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
BAO_INLINE float reduce_max(F v) { return max(max(v[0], v[2]), max(v[1], v[3])); }
#endif
#if defined(__AVX512F__)
BAO_INLINE float reduce_add(F v) { return reduce_add(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }
BAO_INLINE float reduce_max(F v) { return reduce_max(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }
#endif

// The same of `count` vectors at once, one in each lane of the result; the lanes behind them hold anything.
#if defined(__AVX512F__)
template <class Combine>
BAO_INLINE F reduce_each(const F* v, Combine combine) {
  F quarters[4];
  BAO_UNROLL
  for (int i = 0; i < 4; i++) {
    // Halves of the vectors, then quarters: one 128-bit piece is left of each of i, i + 4, i + 8, i + 12.
    const auto halves = [&](int a, int b) {
      return combine(_mm512_shuffle_f32x4(v[a], v[b], 0x44), _mm512_shuffle_f32x4(v[a], v[b], 0xee));
    };
    const F low = halves(i, i + 4), high = halves(i + 8, i + 12);
    quarters[i] = combine(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
  }
  const auto pairs = [&](F a, F b) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return combine(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  };
  const F even = pairs(quarters[0], quarters[1]), odd = pairs(quarters[2], quarters[3]);
  return combine(_mm512_shuffle_ps(even, odd, 0x88), _mm512_shuffle_ps(even, odd, 0xdd));
}
#endif
BAO_INLINE F reduce_add(const F* v, int count) {
#if defined(__AVX512F__)
  if (count > 4) return reduce_each(v, [](F a, F b) { return a + b; });
#endif
  F sums{};
  for (int i = 0; i < count; i++) sums[i] = reduce_add(v[i]);
  return sums;
}
BAO_INLINE F reduce_max(const F* v, int count) {
#if defined(__AVX512F__)
  if (count > 4) return reduce_each(v, [](F a, F b) { return max(a, b); });
#endif
  F maxima{};
  for (int i = 0; i < count; i++) maxima[i] = reduce_max(v[i]);
  return maxima;
}

BAO_INLINE I max(I a, I b) { return a > b ? a : b; }
BAO_INLINE int32_t reduce_max(I v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32(reinterpret_cast<__m512i>(v));
#else
  int32_t greatest = v[0];
  for (int i = 1; i < kLanes; i++) greatest = v[i] > greatest ? v[i] : greatest;
  return greatest;
#endif
}
BAO_INLINE int32_t reduce_add(I v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32(reinterpret_cast<__m512i>(v));
#else
  int32_t sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
#endif
}
// The lowest byte of each lane.
BAO_INLINE void store_bytes(char* p, I v) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v));
  std::memcpy(p, &bytes, sizeof(bytes));
#else
  const B bytes = __builtin_convertvector(v, B);
  std::memcpy(p, &bytes, sizeof(bytes));
#endif
}

BAO_INLINE F as_float(U v) { return reinterpret_cast<F>(v); }
BAO_INLINE U as_bits(F v) { return reinterpret_cast<U>(v); }

// e^x to 2 ulp; 0 below -87.3, so that a masked score vanishes; x at most 88. Cody and Waite's reduction, then Taylor-like
// minimax polynomial of degree 6 on [-ln2/2, ln2/2].
BAO_INLINE F exp(F x) {
  const F lowest = set1(-87.3f);
  const I vanishes = x < lowest;
  x = min(max(x, lowest), set1(88.0f));
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, in the current mode, without an instruction of its own.
  const F magic = set1(12582912.0f);
  const F rounded = fma(x, set1(1.44269504f), magic);
  const F n = rounded - magic;
  F r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  // Beside 1.5 * 2^23 the integer stands in the lowest bits; the others are shifted out.
  const I exponent = reinterpret_cast<I>((as_bits(rounded) << 23) + 0x3f800000u);
  const F result = p * reinterpret_cast<F>(exponent);
  return reinterpret_cast<F>(reinterpret_cast<I>(result) & ~vanishes);
}
BAO_INLINE float exp(float x) { return exp(set1(x))[0]; }

BAO_INLINE F tanh(F x) {
  // 1 - 2 / (e^2x + 1), saturating on both sides.
  const F e = exp(min(x * 2.0f, set1(80.0f)));
  return 1.0f - 2.0f / (e + 1.0f);
}

// (GCC converts whole vectors in halves, which takes four times as many instructions.)
BAO_INLINE U widen(H v) {
#if defined(__AVX512F__)
  return reinterpret_cast<U>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<U>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
  return __builtin_convertvector(v, U);
#endif
}

BAO_INLINE F from_half_bits(H v) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(reinterpret_cast<__m256i>(v));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(reinterpret_cast<__m128i>(v));
#elif defined(__ARM_NEON)
  return vcvt_f32_f16(reinterpret_cast<float16x4_t>(v));
#else
  const U bits = widen(v);
  const U magnitude = (bits & 0x7fffu) << 13;
  // 2^112 moves the exponent's bias and makes subnormals whole; infinity and NaN (exponent 31) need theirs filled up.
  const F scaled = as_float(magnitude) * 0x1p112f;
  const U special = reinterpret_cast<U>(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  return as_float(as_bits(scaled) | special | (bits & 0x8000u) << 16);
#endif
}

// Two vectors of consecutive elements to their even and their odd ones.
BAO_INLINE void split_pairs(F& a, F& b) {
#if defined(__AVX512F__)
  const I evens = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  const I odds = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const F first = _mm512_permutex2var_ps(a, reinterpret_cast<__m512i>(evens), b);
  b = _mm512_permutex2var_ps(a, reinterpret_cast<__m512i>(odds), b);
  a = first;
#elif defined(__AVX2__)
  const auto halves = [](F v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); };
  const F even = halves(_mm256_shuffle_ps(a, b, 0x88)), odd = halves(_mm256_shuffle_ps(a, b, 0xdd));
  a = even;
  b = odd;
#else
  float lanes[2 * kLanes];
  store(lanes, a);
  store(lanes + kLanes, b);
  BAO_UNROLL
  for (int i = 0; i < kLanes; i++) {
    a[i] = lanes[2 * i];
    b[i] = lanes[2 * i + 1];
  }
#endif
}
// And back.
BAO_INLINE void join_pairs(F& a, F& b) {
#if defined(__AVX512F__)
  const I lows = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const I highs = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const F first = _mm512_permutex2var_ps(a, reinterpret_cast<__m512i>(lows), b);
  b = _mm512_permutex2var_ps(a, reinterpret_cast<__m512i>(highs), b);
  a = first;
#elif defined(__AVX2__)
  const F low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
  a = _mm256_permute2f128_ps(low, high, 0x20);
  b = _mm256_permute2f128_ps(low, high, 0x31);
#else
  float lanes[2 * kLanes];
  BAO_UNROLL
  for (int i = 0; i < kLanes; i++) {
    lanes[2 * i] = a[i];
    lanes[2 * i + 1] = b[i];
  }
  a = load(lanes);
  b = load(lanes + kLanes);
#endif
}

// The next kLanes elements as float.
BAO_INLINE F load(const BFloat16* p) { return as_float(widen(load_bits<H>(p)) << 16); }
BAO_INLINE F load(const Float16* p) { return from_half_bits(load_bits<H>(p)); }
// NV vectors, each `ld` elements behind the one before.
template <int NV, class T>
BAO_INLINE void load_vectors(const T* p, int64_t ld, F* out) {
  BAO_UNROLL
  for (int v = 0; v < NV; v++) out[v] = load(p + v * ld);
}
template <class T>
BAO_INLINE F load_n(const T* p, int64_t n) {
  T lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
  return load(lanes);
}

BAO_INLINE float bits_to_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
BAO_INLINE uint32_t float_to_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

// Round to nearest, ties to even; NaN stays NaN.
BAO_INLINE U round_to_bf16(F v) {
  const U bits = as_bits(v);
  const U rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const I nan = v != v;
  return (reinterpret_cast<U>(nan) & (bits >> 16 | 0x40u)) | (~reinterpret_cast<U>(nan) & rounded);
}
BAO_INLINE BFloat16 to_bf16(float f) {
  const uint32_t bits = float_to_bits(f);
  if (f != f) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
BAO_INLINE Float16 to_fp16(float f) {
  const uint32_t bits = float_to_bits(f);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  // 65520 and above rounds to infinity.
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves units of 2^-24 in the low bits, rounded by the addition itself.
    const uint32_t units = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
    return {static_cast<uint16_t>(sign | units)};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

BAO_INLINE void store(BFloat16* p, F v) {
  const H bits = __builtin_convertvector(round_to_bf16(v), H);
  std::memcpy(p, &bits, sizeof(H));
}
BAO_INLINE void store(Float16* p, F v) {
#if defined(__AVX512F__)
  const __m256i bits = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  std::memcpy(p, &bits, sizeof(H));
#elif defined(__F16C__)
  const __m128i bits = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  std::memcpy(p, &bits, sizeof(H));
#else
  for (int i = 0; i < kLanes; i++) p[i] = to_fp16(v[i]);
#endif
}
template <class T>
BAO_INLINE void store_n(T* p, F v, int64_t n) {
  T lanes[kLanes];
  store(lanes, v);
  std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(T));
}

BAO_INLINE void to_storage(float x, float* p) { *p = x; }
BAO_INLINE void to_storage(float x, BFloat16* p) { *p = to_bf16(x); }
BAO_INLINE void to_storage(float x, Float16* p) { *p = to_fp16(x); }

// Calls f with a null pointer of the storage type, so that a kernel's template is chosen by a run-time code.
template <class Fn>
BAO_INLINE void with_dtype(int32_t dtype, Fn f) {
  if (dtype == kFloat32) {
    f(static_cast<float*>(nullptr));
  } else if (dtype == kBFloat16) {
    f(static_cast<BFloat16*>(nullptr));
  } else {
    f(static_cast<Float16*>(nullptr));
  }
}

}  // namespace bao::BAO_ISA
