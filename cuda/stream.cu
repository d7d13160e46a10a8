// The handle that src/device/cuda makes of a CUDA stream.
#include "stream.h"

#include <new>

using namespace bao;

BAO_EXPORT Stream* bao_stream_create(cudaStream_t stream, int32_t activation, int32_t num_multiprocessors) {
  if (!is_float_dtype(activation) || num_multiprocessors <= 0) return nullptr;
  return new (std::nothrow) Stream{stream, activation, num_multiprocessors, nullptr, 0};
}

// What was enqueued before must be done.
BAO_EXPORT void bao_stream_set_workspace(Stream* stream, void* workspace, int64_t bytes) {
  stream->workspace = workspace;
  stream->workspace_bytes = bytes;
}

BAO_EXPORT void bao_stream_destroy(Stream* stream) { delete stream; }
