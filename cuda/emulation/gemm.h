// What the stand-ins for libcublas and libcublasLt share: products of column-major matrices in device memory.
#pragma once

#include <cstdint>
#include <vector>

#include "../float_types.h"
#include "cublas_status.h"
#include "runtime.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace bao::emulation {

// Values of cudaDataType_t, cublasOperation_t, cublasComputeType_t.
enum : int32_t { kR32F = 0, kR16F = 2, kR16BF = 14, kR8FE4M3 = 28 };
enum : int32_t { kNone = 0, kTranspose = 1, kConjugate = 2 };
constexpr int32_t kCompute32F = 68;

struct Matrix {
  const char* data;
  int32_t type;
  int64_t ld;
  // Elements from one matrix of a batch to the next.
  int64_t stride = 0;
};

// d = alpha * op(a) * op(b) + beta * c, where op(a) is [m, k] and op(b) [k, n].
struct Gemm {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha, beta;
  Matrix a, b, c, d;
  int64_t batch = 1;
  // Of d's type; added to each column before it is rounded.
  const char* bias = nullptr;
};

inline int64_t bytes_of(int32_t type) { return type == kR32F ? 4 : type == kR8FE4M3 ? 1 : 2; }
inline bool is_float_type(int32_t type) { return type == kR32F || type == kR16F || type == kR16BF; }

inline float read_element(const char* data, int32_t type, int64_t i) {
  const char* at = data + i * bytes_of(type);
  if (type == kR32F) return *reinterpret_cast<const float*>(at);
  if (type == kR16F) return to_float(*reinterpret_cast<const Half*>(at));
  if (type == kR8FE4M3) return to_float(*reinterpret_cast<const Float8E4M3*>(at));
  return to_float(*reinterpret_cast<const BFloat16*>(at));
}

// A code for shapes, types and memory that the real library would refuse (or fault on).
int32_t check_gemm(const Gemm& g);
void multiply(const Gemm& g);

}  // namespace bao::emulation
