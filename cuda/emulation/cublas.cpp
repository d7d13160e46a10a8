// A stand-in for libcublas: the calls that Bao makes, with the arguments and codes of cublas_api.h. Matrices are column-major.
#include "gemm.h"

using namespace bao::emulation;

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  bool has_workspace = false;
};

int32_t enqueue_gemm(const Handle* handle, const char* name, const Gemm& gemm, int32_t compute_type) {
  if (!handle) return kNotInitialized;
  if (const int32_t status = injected_failure(name)) return status;
  if (compute_type != kCompute32F || gemm.a.type == kR8FE4M3) return kNotSupported;
  if (const int32_t status = check_gemm(gemm)) return status;
  // The real library would put allocations into the graph, of memory that nobody accounts for, and such graphs can't be updated.
  if (is_capturing(handle->stream) && !handle->has_workspace) return kAllocFailed;
  const int32_t code = enqueue(handle->stream, "product", [gemm]() -> int32_t {
    multiply(gemm);
    return 0;
  });
  return code == 0 ? kSuccess : kExecutionFailed;
}

}  // namespace

EXPORT int32_t cublasCreate_v2(Handle** handle) {
  *handle = nullptr;
  if (const int32_t status = injected_failure("cublasCreate_v2")) return status;
  *handle = new Handle;
  return kSuccess;
}

EXPORT int32_t cublasDestroy_v2(Handle* handle) {
  if (const int32_t status = injected_failure("cublasDestroy_v2")) return status;
  delete handle;
  return kSuccess;
}

// The part of the version that `property` names, an enum libraryPropertyType.
EXPORT int32_t cublasGetProperty(int32_t property, int* value) {
  if (const int32_t status = injected_failure("cublasGetProperty")) return status;
  if (property < 0 || property > 2 || !value) return kInvalidValue;
  const int64_t version = stand_in_version("CUBLAS", 130000);
  const int64_t parts[3] = {version / 10000, version / 100 % 100, version % 100};
  *value = static_cast<int>(parts[property]);
  return kSuccess;
}

EXPORT int32_t cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
  if (const int32_t status = injected_failure("cublasSetStream_v2")) return status;
  if (!handle) return kNotInitialized;
  handle->stream = stream;
  // As cuBLAS documents it: back to the workspace of its own.
  handle->has_workspace = false;
  return kSuccess;
}

EXPORT int32_t cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
  if (const int32_t status = injected_failure("cublasSetWorkspace_v2")) return status;
  if (!handle) return kNotInitialized;
  const auto allocation = find_allocation(workspace);
  const bool known = allocation.end != 0 && reinterpret_cast<uintptr_t>(workspace) + bytes <= allocation.end;
  handle->has_workspace = known && bytes > 0;
  return known ? kSuccess : kInvalidValue;
}

EXPORT const char* cublasGetStatusName(int32_t status) { return status_name(status); }

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
