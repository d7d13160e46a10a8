// A stand-in for libcublas: the calls that Bao makes, with the arguments and codes of cublas_api.h. Matrices are column-major.
#include "gemm.h"

using namespace bao::emulation;

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
};

int32_t enqueue_gemm(const Handle* handle, const char* name, const Gemm& gemm, int32_t compute_type) {
  if (!handle) return kNotInitialized;
  if (compute_type != kCompute32F || gemm.a.type == kR8FE4M3) return kNotSupported;
  if (const int32_t status = check_gemm(gemm)) return status;
  const int32_t code = enqueue(handle->stream, name, [gemm]() -> int32_t {
    multiply(gemm);
    return 0;
  });
  return code == 0 ? kSuccess : kExecutionFailed;
}

}  // namespace

EXPORT int32_t cublasCreate_v2(Handle** handle) {
  *handle = nullptr;
  if (injected_failure("cublasCreate_v2")) return kNotInitialized;
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
  const auto allocation = find_allocation(workspace);
  const bool known = allocation.end != 0 && reinterpret_cast<uintptr_t>(workspace) + bytes <= allocation.end;
  return known ? kSuccess : kInvalidValue;
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

EXPORT int32_t cublasGemmStridedBatchedEx(Handle* handle, int32_t transpose_a, int32_t transpose_b, int m, int n, int k,
                                          const void* alpha, const void* a, int32_t a_type, int ld_a, long long stride_a,
                                          const void* b, int32_t b_type, int ld_b, long long stride_b, const void* beta, void* c,
                                          int32_t c_type, int ld_c, long long stride_c, int batch, int32_t compute_type, int32_t) {
  const Matrix out{static_cast<const char*>(c), c_type, ld_c, stride_c};
  return enqueue_gemm(handle, "cublasGemmStridedBatchedEx",
                      {transpose_a != kNone,
                       transpose_b != kNone,
                       m,
                       n,
                       k,
                       *static_cast<const float*>(alpha),
                       *static_cast<const float*>(beta),
                       {static_cast<const char*>(a), a_type, ld_a, stride_a},
                       {static_cast<const char*>(b), b_type, ld_b, stride_b},
                       out,
                       out,
                       batch},
                      compute_type);
}

EXPORT int32_t cublasGemmEx(Handle* handle, int32_t transpose_a, int32_t transpose_b, int m, int n, int k, const void* alpha,
                            const void* a, int32_t a_type, int ld_a, const void* b, int32_t b_type, int ld_b, const void* beta,
                            void* c, int32_t c_type, int ld_c, int32_t compute_type, int32_t) {
  const Matrix out{static_cast<const char*>(c), c_type, ld_c};
  return enqueue_gemm(handle, "cublasGemmEx",
                      {transpose_a != kNone,
                       transpose_b != kNone,
                       m,
                       n,
                       k,
                       *static_cast<const float*>(alpha),
                       *static_cast<const float*>(beta),
                       {static_cast<const char*>(a), a_type, ld_a},
                       {static_cast<const char*>(b), b_type, ld_b},
                       out,
                       out},
                      compute_type);
}
