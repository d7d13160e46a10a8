// The stand-in libcudart: streams and events.
#include "state.h"

using namespace bao::emulation;

EXPORT int32_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(runtime().mutex);
  *stream = nullptr;
  if (const int32_t code = enter("cudaStreamCreateWithFlags")) return remember(code);
  *stream = new EmulatedStream;
  (*stream)->device = current_device;
  runtime().streams.insert(*stream);
  return kSuccess;
}

EXPORT int32_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (const int32_t code = injected_failure("cudaStreamDestroy")) return remember(code);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  run_until(*stream, stream->enqueued);
  runtime().streams.erase(stream);
  delete stream;
  return kSuccess;
}

EXPORT int32_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  if (stream->capture) {
    stream->broken = true;
    return remember(kStreamCaptureUnsupported);
  }
  if (const int32_t code = failure_on(*stream, "cudaStreamSynchronize")) return remember(code);
  return remember(run_until(*stream, stream->enqueued));
}

EXPORT int32_t cudaEventCreateWithFlags(EmulatedEvent** event, unsigned) {
  const Lock lock(runtime().mutex);
  *event = nullptr;
  if (const int32_t code = enter("cudaEventCreateWithFlags")) return remember(code);
  *event = new EmulatedEvent;
  return kSuccess;
}

EXPORT int32_t cudaEventDestroy(EmulatedEvent* event) {
  if (const int32_t code = injected_failure("cudaEventDestroy")) return remember(code);
  delete event;
  return kSuccess;
}

EXPORT int32_t cudaEventRecord(EmulatedEvent* event, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (const int32_t code = enter("cudaEventRecord")) return remember(code);
  if (!event || !known(stream)) return remember(kInvalidResourceHandle);
  *event = {stream, stream->enqueued};
  return kSuccess;
}

// A question is also a chance to go on: one operation is done for each.
EXPORT int32_t cudaEventQuery(EmulatedEvent* event) {
  const Lock lock(runtime().mutex);
  if (!event) return remember(kInvalidResourceHandle);
  if (!known(event->stream)) return kSuccess;
  if (const int32_t code = failure_on(*event->stream, "cudaEventQuery")) return remember(code);
  if (event->stream->done < event->position && !event->stream->queue.empty()) run_front(*event->stream);
  if (const int32_t code = runtime().sticky_of(event->stream->device)) return remember(code);
  return event->stream->done < event->position ? kNotReady : kSuccess;
}

EXPORT int32_t cudaEventSynchronize(EmulatedEvent* event) {
  const Lock lock(runtime().mutex);
  if (!event) return remember(kInvalidResourceHandle);
  if (!known(event->stream)) return kSuccess;
  if (const int32_t code = failure_on(*event->stream, "cudaEventSynchronize")) return remember(code);
  return remember(run_until(*event->stream, event->position));
}

