// What the stand-in libraries and emulated launches share. The types have the names of cuda_runtime_api.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "grid.h"

using cudaStream_t = struct EmulatedStream*;

namespace bao::emulation {

// Appends work to a stream (or to the graph that it captures). Returns a cudaError_t.
int32_t enqueue(cudaStream_t stream, const char* name, std::function<int32_t()> work);

// `prepare` gives the body of a thread once the grid runs. Returns a cudaError_t.
int32_t enqueue_kernel(const char* name, Dim3 grid, Dim3 block, size_t shared_bytes, cudaStream_t stream, bool checked,
                       std::function<std::function<void()>()> prepare);

// Whether what is enqueued becomes a part of a graph.
bool is_capturing(cudaStream_t stream);

// The code that BAO_CUDA_EMULATION_FAIL asks of this call of `function`, else 0.
int32_t injected_failure(const char* function);

// BAO_CUDA_EMULATION_<library>_VERSION, or what the stand-in is modelled on.
int64_t stand_in_version(const char* library, int64_t modelled_on);

}  // namespace bao::emulation
