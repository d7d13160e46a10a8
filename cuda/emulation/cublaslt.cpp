// A stand-in for libcublasLt: the calls that Bao makes, with the arguments and codes of cublasLt.h. Descriptors are checked as the library does where
// that is documented: attributes by their size, an algorithm by the product that it was found for, addresses by the alignment that was promised.
#include <cstring>

#include "gemm.h"

using namespace bao::emulation;

namespace {

// Values of the enums of cublasLt.h.
enum : int32_t { kDescTransposeA = 3, kDescTransposeB = 4, kDescEpilogue = 7, kDescBias = 8, kDescScaleA = 17, kDescScaleB = 18 };
enum : int32_t { kEpilogueDefault = 1, kEpilogueBias = 4 };
enum : int32_t { kPreferenceWorkspace = 1, kPreferenceAlignA = 5, kPreferenceAlignB = 6, kPreferenceAlignC = 7, kPreferenceAlignD = 8 };

struct LtHandle {};

struct MatmulDesc {
  int32_t transpose_a = 0, transpose_b = 0, epilogue = kEpilogueDefault;
  const char* bias = nullptr;
  const float *scale_a = nullptr, *scale_b = nullptr;
};

struct Layout {
  int32_t type;
  uint64_t rows, columns;
  int64_t ld;
};

struct Preference {
  uint64_t workspace_bytes = 0;
  // Of A, B, C, D.
  uint32_t alignment[4] = {256, 256, 256, 256};
};

// What stands in the 64 bytes of cublasLtMatmulAlgo_t.
struct Algorithm {
  uint64_t magic;
  int64_t m, n, k;
  uint64_t workspace_bytes;
  uint32_t alignment[4];
  int32_t epilogue;
};
static_assert(sizeof(Algorithm) <= 64);
constexpr uint64_t kMagic = 0x62616f6c74ull;
constexpr uint64_t kWorkspaceBytes = 4096;

struct HeuristicResult {
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

template <class T>
int32_t set(T& member, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return kInvalidValue;
  std::memcpy(&member, value, bytes);
  return kSuccess;
}

struct Product {
  int64_t m, n, k;
};

// Whether the descriptors belong together.
int32_t product_of(const MatmulDesc* desc, const Layout* a, const Layout* b, const Layout* c, const Layout* d, Product& product) {
  if (!desc || !a || !b || !c || !d) return kInvalidValue;
  product.m = static_cast<int64_t>(desc->transpose_a ? a->columns : a->rows);
  product.k = static_cast<int64_t>(desc->transpose_a ? a->rows : a->columns);
  product.n = static_cast<int64_t>(desc->transpose_b ? b->rows : b->columns);
  const auto inner = static_cast<int64_t>(desc->transpose_b ? b->columns : b->rows);
  if (inner != product.k || static_cast<int64_t>(d->rows) != product.m || static_cast<int64_t>(d->columns) != product.n) return kInvalidValue;
  if (c->rows != d->rows || c->columns != d->columns) return kInvalidValue;
  if (desc->epilogue != kEpilogueDefault && desc->epilogue != kEpilogueBias) return kNotSupported;
  // 8-bit products are "TN" only, of dimensions and rows of 16 bytes.
  const bool fp8 = a->type == kR8FE4M3;
  if (fp8 && (!desc->transpose_a || desc->transpose_b || product.k % 16 != 0 || product.m % 16 != 0 || a->ld % 16 != 0 || b->ld % 16 != 0)) {
    return kNotSupported;
  }
  return kSuccess;
}

bool is_aligned(const void* address, uint32_t alignment) { return reinterpret_cast<uintptr_t>(address) % alignment == 0; }

}  // namespace

EXPORT int32_t cublasLtCreate(LtHandle** handle) {
  *handle = nullptr;
  if (const int32_t status = injected_failure("cublasLtCreate")) return status;
  *handle = new LtHandle;
  return kSuccess;
}

EXPORT int32_t cublasLtDestroy(LtHandle* handle) {
  if (const int32_t status = injected_failure("cublasLtDestroy")) return status;
  delete handle;
  return kSuccess;
}

EXPORT size_t cublasLtGetVersion() { return static_cast<size_t>(stand_in_version("CUBLASLT", 130000)); }

EXPORT const char* cublasLtGetStatusName(int32_t status) { return status_name(status); }

EXPORT int32_t cublasLtMatmulDescCreate(MatmulDesc** desc, int32_t compute_type, int32_t scale_type) {
  if (const int32_t status = injected_failure("cublasLtMatmulDescCreate")) return status;
  *desc = nullptr;
  if (compute_type != kCompute32F || scale_type != kR32F) return kNotSupported;
  *desc = new MatmulDesc;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmulDescDestroy(MatmulDesc* desc) {
  if (const int32_t status = injected_failure("cublasLtMatmulDescDestroy")) return status;
  delete desc;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmulDescSetAttribute(MatmulDesc* desc, int32_t attribute, const void* value, size_t bytes) {
  if (const int32_t status = injected_failure("cublasLtMatmulDescSetAttribute")) return status;
  if (!desc || !value) return kInvalidValue;
  switch (attribute) {
    case kDescTransposeA:
      return set(desc->transpose_a, value, bytes);
    case kDescTransposeB:
      return set(desc->transpose_b, value, bytes);
    case kDescEpilogue:
      return set(desc->epilogue, value, bytes);
    case kDescBias:
      return set(desc->bias, value, bytes);
    case kDescScaleA:
      return set(desc->scale_a, value, bytes);
    case kDescScaleB:
      return set(desc->scale_b, value, bytes);
    default:
      return kInvalidValue;
  }
}

EXPORT int32_t cublasLtMatrixLayoutCreate(Layout** layout, int32_t type, uint64_t rows, uint64_t columns, int64_t ld) {
  if (const int32_t status = injected_failure("cublasLtMatrixLayoutCreate")) return status;
  *layout = new Layout{type, rows, columns, ld};
  return kSuccess;
}

EXPORT int32_t cublasLtMatrixLayoutDestroy(Layout* layout) {
  if (const int32_t status = injected_failure("cublasLtMatrixLayoutDestroy")) return status;
  delete layout;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmulPreferenceCreate(Preference** preference) {
  if (const int32_t status = injected_failure("cublasLtMatmulPreferenceCreate")) return status;
  *preference = new Preference;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmulPreferenceDestroy(Preference* preference) {
  if (const int32_t status = injected_failure("cublasLtMatmulPreferenceDestroy")) return status;
  delete preference;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmulPreferenceSetAttribute(Preference* preference, int32_t attribute, const void* value, size_t bytes) {
  if (const int32_t status = injected_failure("cublasLtMatmulPreferenceSetAttribute")) return status;
  if (!preference || !value) return kInvalidValue;
  if (attribute == kPreferenceWorkspace) return set(preference->workspace_bytes, value, bytes);
  if (attribute < kPreferenceAlignA || attribute > kPreferenceAlignD) return kInvalidValue;
  return set(preference->alignment[attribute - kPreferenceAlignA], value, bytes);
}

EXPORT int32_t cublasLtMatmulAlgoGetHeuristic(LtHandle* handle, MatmulDesc* desc, Layout* a, Layout* b, Layout* c, Layout* d,
                                              Preference* preference, int requested, HeuristicResult* results, int* returned) {
  if (const int32_t status = injected_failure("cublasLtMatmulAlgoGetHeuristic")) return status;
  *returned = 0;
  if (!handle) return kNotInitialized;
  if (!preference || requested <= 0) return kInvalidValue;
  Product product{};
  if (const int32_t status = product_of(desc, a, b, c, d, product)) return status;
  Algorithm algorithm{kMagic, product.m, product.n, product.k, 0, {}, desc->epilogue};
  algorithm.workspace_bytes = preference->workspace_bytes < kWorkspaceBytes ? 0 : kWorkspaceBytes;
  std::memcpy(algorithm.alignment, preference->alignment, sizeof(algorithm.alignment));
  HeuristicResult result{};
  std::memcpy(result.algorithm, &algorithm, sizeof(algorithm));
  result.workspace_bytes = algorithm.workspace_bytes;
  result.state = kSuccess;
  result.waves = 1.0f;
  results[0] = result;
  *returned = 1;
  return kSuccess;
}

EXPORT int32_t cublasLtMatmul(LtHandle* handle, MatmulDesc* desc, const void* alpha, const void* a, Layout* a_layout, const void* b,
                              Layout* b_layout, const void* beta, const void* c, Layout* c_layout, void* d, Layout* d_layout,
                              const void* algo, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  if (const int32_t status = injected_failure("cublasLtMatmul")) return status;
  if (!handle) return kNotInitialized;
  Product product{};
  if (const int32_t status = product_of(desc, a_layout, b_layout, c_layout, d_layout, product)) return status;
  Algorithm algorithm{};
  if (!algo) return kInvalidValue;
  std::memcpy(&algorithm, algo, sizeof(algorithm));
  const bool fits = algorithm.magic == kMagic && algorithm.m == product.m && algorithm.n == product.n && algorithm.k == product.k &&
                    algorithm.epilogue == desc->epilogue && algorithm.workspace_bytes <= workspace_bytes &&
                    (workspace || algorithm.workspace_bytes == 0);
  const void* const addresses[4] = {a, b, c, d};
  bool aligned = true;
  for (int i = 0; i < 4; i++) aligned = aligned && is_aligned(addresses[i], algorithm.alignment[i]);
  if (!fits || !aligned) return kInvalidValue;
  const bool biased = desc->epilogue == kEpilogueBias;
  if (biased && !desc->bias) return kInvalidValue;
  const auto matrix = [](const void* data, const Layout* layout) {
    return Matrix{static_cast<const char*>(data), layout->type, layout->ld};
  };
  Gemm gemm{desc->transpose_a != kNone,
            desc->transpose_b != kNone,
            product.m,
            product.n,
            product.k,
            *static_cast<const float*>(alpha),
            *static_cast<const float*>(beta),
            matrix(a, a_layout),
            matrix(b, b_layout),
            matrix(c, c_layout),
            matrix(d, d_layout),
            1,
            biased ? desc->bias : nullptr};
  if (const int32_t status = check_gemm(gemm)) return status;
  const float *scale_a = desc->scale_a, *scale_b = desc->scale_b;
  const int32_t code = enqueue(stream, "product", [gemm, scale_a, scale_b]() mutable -> int32_t {
    // On the device, read when the product runs.
    if (scale_a) gemm.alpha *= *scale_a;
    if (scale_b) gemm.alpha *= *scale_b;
    multiply(gemm);
    return 0;
  });
  return code == 0 ? kSuccess : kExecutionFailed;
}
