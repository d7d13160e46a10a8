// A stand-in for libcublas: the calls that Bao makes, with the arguments and codes of cublas_api.h. Matrices are column-major.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../float_types.h"
#include "runtime.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using bao::BFloat16;
using bao::Half;

namespace {

// Values of cublasStatus_t, cudaDataType_t, cublasOperation_t, cublasComputeType_t.
enum : int32_t { kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15 };
enum : int32_t { kR32F = 0, kR16F = 2, kR16BF = 14 };
enum : int32_t { kNone = 0, kTranspose = 1, kConjugate = 2 };
constexpr int32_t kCompute32F = 68;

struct Handle {
  cudaStream_t stream = nullptr;
};

struct Matrix {
  const char* data;
  int32_t type;
  int64_t ld;
};

int64_t bytes_of(int32_t type) { return type == kR32F ? 4 : 2; }
bool is_type(int32_t type) { return type == kR32F || type == kR16F || type == kR16BF; }

float read(const Matrix& m, int64_t row, int64_t column) {
  const char* at = m.data + (row + column * m.ld) * bytes_of(m.type);
  if (m.type == kR32F) return *reinterpret_cast<const float*>(at);
  if (m.type == kR16F) return to_float(*reinterpret_cast<const Half*>(at));
  return to_float(*reinterpret_cast<const BFloat16*>(at));
}

void write(char* data, int32_t type, int64_t ld, int64_t row, int64_t column, float value) {
  char* at = data + (row + column * ld) * bytes_of(type);
  if (type == kR32F) *reinterpret_cast<float*>(at) = value;
  if (type == kR16F) *reinterpret_cast<Half*>(at) = bao::from_float<Half>(value);
  if (type == kR16BF) *reinterpret_cast<BFloat16*>(at) = bao::from_float<BFloat16>(value);
}

struct Gemm {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha, beta;
  Matrix a, b;
  char* c;
  int32_t c_type;
  int64_t ld_c;
};

// Vectors along k, zero-padded to a multiple of the lanes.
constexpr int64_t kLanes = 16;

std::vector<float> along_k(const Matrix& matrix, int64_t count, int64_t k, bool k_is_row) {
  const int64_t padded = (k + kLanes - 1) / kLanes * kLanes;
  std::vector<float> values(static_cast<size_t>(count * padded));
  for (int64_t i = 0; i < count; i++) {
    for (int64_t p = 0; p < k; p++) {
      values[static_cast<size_t>(i * padded + p)] = k_is_row ? read(matrix, p, i) : read(matrix, i, p);
    }
  }
  return values;
}

float dot(const float* a, const float* b, int64_t padded) {
  float lanes[kLanes] = {};
  for (int64_t p = 0; p < padded; p += kLanes) {
    for (int64_t lane = 0; lane < kLanes; lane++) lanes[lane] += a[p + lane] * b[p + lane];
  }
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

void multiply(const Gemm& g) {
  const int64_t padded = (g.k + kLanes - 1) / kLanes * kLanes;
  const std::vector<float> a = along_k(g.a, g.m, g.k, g.transpose_a);
  const std::vector<float> b = along_k(g.b, g.n, g.k, !g.transpose_b);
  for (int64_t column = 0; column < g.n; column++) {
    for (int64_t row = 0; row < g.m; row++) {
      float value = g.alpha * dot(a.data() + row * padded, b.data() + column * padded, padded);
      // With beta 0 what C held is not read.
      if (g.beta != 0) value += g.beta * read({g.c, g.c_type, g.ld_c}, row, column);
      write(g.c, g.c_type, g.ld_c, row, column, value);
    }
  }
}

int32_t check(const Gemm& g, int32_t compute_type) {
  if (g.m < 0 || g.n < 0 || g.k < 0) return kInvalidValue;
  if (g.a.ld < std::max<int64_t>(1, g.transpose_a ? g.k : g.m)) return kInvalidValue;
  if (g.b.ld < std::max<int64_t>(1, g.transpose_b ? g.n : g.k)) return kInvalidValue;
  if (g.ld_c < std::max<int64_t>(1, g.m)) return kInvalidValue;
  if (compute_type != kCompute32F || !is_type(g.a.type) || g.a.type != g.b.type || !is_type(g.c_type)) return kNotSupported;
  if (g.c_type != kR32F && g.c_type != g.a.type) return kNotSupported;
  return kSuccess;
}

// Bytes that a column-major matrix spans.
int64_t span(int64_t rows, int64_t columns, int64_t ld, int32_t type) {
  return rows == 0 || columns == 0 ? 0 : ((columns - 1) * ld + rows) * bytes_of(type);
}

bool in_device_memory(const void* data, int64_t bytes) {
  const auto allocation = bao::emulation::find_allocation(data);
  return bytes == 0 || (allocation.end != 0 && reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes) <= allocation.end);
}

}  // namespace

EXPORT int32_t cublasCreate_v2(Handle** handle) {
  *handle = nullptr;
  if (bao::emulation::injected_failure("cublasCreate_v2")) return kNotInitialized;
  *handle = new Handle;
  return kSuccess;
}

EXPORT int32_t cublasDestroy_v2(Handle* handle) {
  delete handle;
  return kSuccess;
}

EXPORT int32_t cublasGetVersion_v2(Handle* handle, int* version) {
  *version = 130000;
  return handle ? kSuccess : kNotInitialized;
}

EXPORT int32_t cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
  if (!handle) return kNotInitialized;
  handle->stream = stream;
  return kSuccess;
}

EXPORT int32_t cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
  if (!handle) return kNotInitialized;
  return in_device_memory(workspace, static_cast<int64_t>(bytes)) ? kSuccess : kInvalidValue;
}

EXPORT const char* cublasGetStatusName(int32_t status) {
  switch (status) {
    case kSuccess:
      return "CUBLAS_STATUS_SUCCESS";
    case kNotInitialized:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case kInvalidValue:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case kExecutionFailed:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case kNotSupported:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_UNKNOWN";
  }
}

EXPORT int32_t cublasGemmEx(Handle* handle, int32_t transpose_a, int32_t transpose_b, int m, int n, int k, const void* alpha,
                            const void* a, int32_t a_type, int ld_a, const void* b, int32_t b_type, int ld_b, const void* beta,
                            void* c, int32_t c_type, int ld_c, int32_t compute_type, int32_t) {
  if (!handle) return kNotInitialized;
  const Gemm gemm{transpose_a != kNone,
                  transpose_b != kNone,
                  m,
                  n,
                  k,
                  *static_cast<const float*>(alpha),
                  *static_cast<const float*>(beta),
                  {static_cast<const char*>(a), a_type, ld_a},
                  {static_cast<const char*>(b), b_type, ld_b},
                  static_cast<char*>(c),
                  c_type,
                  ld_c};
  if (const int32_t status = check(gemm, compute_type)) return status;
  const bool known = in_device_memory(a, span(gemm.transpose_a ? k : m, gemm.transpose_a ? m : k, ld_a, a_type)) &&
                     in_device_memory(b, span(gemm.transpose_b ? n : k, gemm.transpose_b ? k : n, ld_b, b_type)) &&
                     in_device_memory(c, span(m, n, ld_c, c_type));
  if (!known) return kInvalidValue;
  const int32_t code = bao::emulation::enqueue(handle->stream, "cublasGemmEx", [gemm]() -> int32_t {
    multiply(gemm);
    return 0;
  });
  return code == 0 ? kSuccess : kExecutionFailed;
}
