// The stand-in libcudart: capture of a stream's work as a graph, and its replay.
#include <utility>

#include "state.h"

using namespace bao::emulation;

namespace {

constexpr int kCaptureModeRelaxed = 2;
// What an executable graph takes of the device's memory; the real numbers are the driver's secret.
constexpr size_t kGraphBytes = 64 << 10, kOperationBytes = 1 << 10;

}  // namespace

EXPORT int32_t cudaStreamBeginCapture(cudaStream_t stream, int mode) {
  const Lock lock(runtime().mutex);
  if (const int32_t code = enter("cudaStreamBeginCapture")) return remember(code);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  if (mode < 0 || mode > kCaptureModeRelaxed) return remember(kInvalidValue);
  if (stream->capture) return remember(kIllegalState);
  stream->capture = std::make_unique<EmulatedGraph>();
  stream->broken = false;
  if (mode != kCaptureModeRelaxed) guarded_capture = stream;
  return kSuccess;
}

// Ends the capture in any case; a broken one gives no graph.
EXPORT int32_t cudaStreamEndCapture(cudaStream_t stream, EmulatedGraph** graph) {
  const Lock lock(runtime().mutex);
  *graph = nullptr;
  if (!known(stream) || !stream->capture) return remember(kIllegalState);
  std::unique_ptr<EmulatedGraph> captured = std::move(stream->capture);
  guarded_capture = nullptr;
  if (const int32_t code = enter("cudaStreamEndCapture")) return remember(code);
  if (stream->broken) return remember(kStreamCaptureInvalidated);
  captured->device = stream->device;
  *graph = captured.release();
  return kSuccess;
}

// An executable graph is a copy: the graph may be destroyed.
EXPORT int32_t cudaGraphInstantiate(EmulatedGraph** executable, EmulatedGraph* graph, unsigned long long) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *executable = nullptr;
  if (const int32_t code = enter("cudaGraphInstantiate")) return remember(code);
  if (!graph) return remember(kInvalidValue);
  const size_t bytes = kGraphBytes + graph->operations.size() * kOperationBytes;
  if (bytes > r.memory_bytes - r.used_by(graph->device)) return remember(kMemoryAllocation);
  *executable = new EmulatedGraph(*graph);
  (*executable)->bytes = bytes;
  r.used_by(graph->device) += bytes;
  return kSuccess;
}

EXPORT int32_t cudaGraphLaunch(EmulatedGraph* executable, cudaStream_t stream) {
  if (!executable) return remember(kInvalidResourceHandle);
  // Shared, so that the executable may be destroyed while its launch still waits.
  auto operations = std::make_shared<std::vector<Operation>>(executable->operations);
  return enqueue(stream, "cudaGraphLaunch", [operations, at = size_t{0}]() mutable -> int32_t {
    // One that has to wait is where the launch goes on.
    for (; at < operations->size(); at++) {
      if (const int32_t code = (*operations)[at].work()) return code;
    }
    return kSuccess;
  });
}

EXPORT int32_t cudaGraphDestroy(EmulatedGraph* graph) {
  if (const int32_t code = injected_failure("cudaGraphDestroy")) return remember(code);
  delete graph;
  return kSuccess;
}

EXPORT int32_t cudaGraphExecDestroy(EmulatedGraph* executable) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (!executable) return remember(kInvalidResourceHandle);
  if (const int32_t code = injected_failure("cudaGraphExecDestroy")) return remember(code);
  r.used_by(executable->device) -= executable->bytes;
  delete executable;
  return kSuccess;
}
