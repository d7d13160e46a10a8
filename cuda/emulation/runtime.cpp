// A stand-in for libcudart. Its functions have the names, arguments and codes of cuda_runtime_api.h; devices are memory and streams of this
// process.
//
// Streams are lazy: work waits until a call has to wait for it, and is then done by the caller, no further than was asked for.
// So a read of results without a synchronization finds them missing, always and not only in a race.
//
// BAO_CUDA_EMULATION_DEVICES: how many (2), BAO_CUDA_EMULATION_MEMORY: bytes of each (2 GiB).
// BAO_CUDA_EMULATION_SHARED_MEMORY: bytes that a block may have (232448, as on sm_90; 101376 on sm_86, sm_89 and sm_120).
// BAO_CUDA_EMULATION_FAIL: "FUNCTION@CALL=CODE,…" makes that call (from 1 on) fail: "cudaMalloc@12=2,launch@100=719".
// BAO_CUDA_EMULATION_FAIL_FILE: a file that may appear later with such a line; calls are counted from then on.
//
// BAO_CUDA_EMULATION_CUDART_VERSION (and _CUBLAS_, _CUBLASLT_, _NCCL_): what the library says its version is, in its own way of writing one.
//
// This file: devices and errors; memory.cpp, streams.cpp, graphs.cpp: the rest; state.h: what they share.
#include <utility>

#include "state.h"

using namespace bao::emulation;

namespace {

struct ErrorName {
  int32_t code;
  const char* name;
  const char* text;
};
constexpr ErrorName kErrors[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
};

}  // namespace

EXPORT int32_t cudaGetDeviceCount(int* count) {
  if (const int32_t code = injected_failure("cudaGetDeviceCount")) return remember(code);
  const int devices = runtime().num_devices;
  *count = devices;
  return devices > 0 ? kSuccess : remember(kNoDevice);
}

EXPORT int32_t cudaSetDevice(int device) {
  if (const int32_t code = injected_failure("cudaSetDevice")) return remember(code);
  if (device < 0 || device >= runtime().num_devices) return remember(kInvalidDevice);
  current_device = device;
  return kSuccess;
}

EXPORT int32_t cudaGetDevice(int* device) {
  *device = current_device;
  return kSuccess;
}

EXPORT int32_t cudaDeviceGetAttribute(int* value, int attribute, int device) {
  if (const int32_t code = injected_failure("cudaDeviceGetAttribute")) return remember(code);
  if (device < 0 || device >= runtime().num_devices) return remember(kInvalidDevice);
  switch (attribute) {
    case 16:  // cudaDevAttrMultiProcessorCount
      *value = 4;
      return kSuccess;
    case 75:  // cudaDevAttrComputeCapabilityMajor
      *value = 9;
      return kSuccess;
    case 76:  // cudaDevAttrComputeCapabilityMinor
      *value = 0;
      return kSuccess;
    default:
      return remember(kInvalidValue);
  }
}

EXPORT int32_t cudaRuntimeGetVersion(int* version) {
  if (const int32_t code = injected_failure("cudaRuntimeGetVersion")) return remember(code);
  *version = static_cast<int>(stand_in_version("CUDART", 13000));
  return kSuccess;
}

EXPORT const char* cudaGetErrorName(int32_t code) {
  for (const ErrorName& each : kErrors) {
    if (each.code == code) return each.name;
  }
  return "unrecognized error code";
}

EXPORT const char* cudaGetErrorString(int32_t code) {
  for (const ErrorName& each : kErrors) {
    if (each.code == code) return each.text;
  }
  return "unrecognized error code";
}

EXPORT int32_t cudaGetLastError() { return std::exchange(last_error, kSuccess); }

