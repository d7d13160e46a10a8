// The handle that src/device/cuda makes of a CUDA stream.
#include "stream.h"

#include <new>

#if defined(__CUDACC__)
bool bao::programmatic_launch = false;
#endif

using namespace bao;

// With early_start 1 kernels may be started before the ones before them have ended; for all streams of the process.
BAO_EXPORT Stream* bao_stream_create(cudaStream_t stream, int32_t activation, int32_t num_multiprocessors,
                                     [[maybe_unused]] int32_t early_start) {
  if (!is_float_dtype(activation) || num_multiprocessors <= 0) return nullptr;
#if defined(__CUDACC__)
  programmatic_launch = early_start != 0;
#endif
  return new (std::nothrow) Stream{stream, activation, num_multiprocessors, nullptr, 0};
}

// What was enqueued before must be done.
BAO_EXPORT void bao_stream_set_workspace(Stream* stream, void* workspace, int64_t bytes) {
  stream->workspace = workspace;
  stream->workspace_bytes = bytes;
}

BAO_EXPORT void bao_stream_destroy(Stream* stream) { delete stream; }
