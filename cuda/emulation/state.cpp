#include "state.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <utility>

namespace bao::emulation {

thread_local int current_device = 0;
thread_local int32_t last_error = kSuccess;
thread_local EmulatedStream* guarded_capture = nullptr;

namespace {

std::vector<Injection> parse_injections(const std::string& list) {
  std::vector<Injection> injections;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string item = list.substr(at, end - at);
    const size_t call = item.find('@'), code = item.find('=');
    if (call != std::string::npos && code != std::string::npos) {
      injections.push_back({item.substr(0, call), std::atoll(item.c_str() + call + 1), std::atoi(item.c_str() + code + 1)});
    }
    at = end + 1;
  }
  return injections;
}

// A file that appears is read, removed, and counts calls anew.
void read_injections(Runtime& r) {
  if (r.injections_file.empty()) return;
  std::ifstream file(r.injections_file);
  std::string list;
  if (!std::getline(file, list)) return;
  std::remove(r.injections_file.c_str());
  r.injections = parse_injections(list);
  r.calls.clear();
}

}  // namespace

Runtime::Runtime() {
  if (const char* devices = std::getenv("BAO_CUDA_EMULATION_DEVICES")) num_devices = std::atoi(devices);
  if (const char* bytes = std::getenv("BAO_CUDA_EMULATION_MEMORY")) memory_bytes = std::strtoull(bytes, nullptr, 10);
  if (const char* bytes = std::getenv("BAO_CUDA_EMULATION_SHARED_MEMORY")) {
    shared_bytes = std::min(kMaxSharedBytes, static_cast<size_t>(std::strtoull(bytes, nullptr, 10)));
  }
  if (const char* list = std::getenv("BAO_CUDA_EMULATION_FAIL")) injections = parse_injections(list);
  if (const char* file = std::getenv("BAO_CUDA_EMULATION_FAIL_FILE")) injections_file = file;
  used.resize(static_cast<size_t>(std::max(num_devices, 0)));
  sticky.resize(used.size());
}

Runtime& runtime() {
  static auto* instance = new Runtime();
  return *instance;
}

int32_t remember(int32_t code) {
  if (code != kSuccess && code != kNotReady) last_error = code;
  return code;
}

int32_t enter(const char* function) {
  Runtime& r = runtime();
  if (const int32_t code = injected_failure(function)) return code;
  if (current_device >= r.num_devices) return r.num_devices == 0 ? kNoDevice : kInvalidDevice;
  return r.sticky_of(current_device);
}

int32_t enter_unsafe(const char* function) {
  if (!guarded_capture) return enter(function);
  guarded_capture->broken = true;
  return kStreamCaptureUnsupported;
}

bool known(EmulatedStream* stream) { return stream && runtime().streams.count(stream) > 0; }

int32_t failure_on(EmulatedStream& stream, const char* function) {
  const int32_t code = injected_failure(function);
  if (code != kSuccess) runtime().sticky_of(stream.device) = code;
  return code;
}

bool run_front(EmulatedStream& stream) {
  int32_t& sticky = runtime().sticky_of(stream.device);
  const int32_t code = sticky == kSuccess ? stream.queue.front().work() : kSuccess;
  if (code == kBlocked) return false;
  if (sticky == kSuccess) sticky = code;
  stream.queue.pop_front();
  stream.done++;
  return true;
}

int32_t run_until(EmulatedStream& stream, int64_t position) {
  while (stream.done < position && !stream.queue.empty()) {
    if (run_front(stream)) continue;
    runtime().mutex.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
    runtime().mutex.lock();
  }
  return runtime().sticky_of(stream.device);
}

int32_t run_device(int device) {
  // A copy: while a stream waits for others, streams come and go.
  for (EmulatedStream* stream : std::set<EmulatedStream*>(runtime().streams)) {
    if (known(stream) && stream->device == device) run_until(*stream, stream->enqueued);
  }
  return runtime().sticky_of(device);
}

__attribute__((visibility("default"))) int32_t injected_failure(const char* function) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  read_injections(r);
  if (r.injections.empty()) return kSuccess;
  const int64_t call = ++r.calls[function];
  for (const Injection& each : r.injections) {
    if (each.function != function || each.call != call) continue;
    std::fprintf(stderr, "CUDA emulation: %s fails with %d\n", function, each.code);
    return each.code;
  }
  return kSuccess;
}

__attribute__((visibility("default"))) int64_t stand_in_version(const char* library, int64_t modelled_on) {
  const char* version = std::getenv(("BAO_CUDA_EMULATION_" + std::string(library) + "_VERSION").c_str());
  return version ? std::atoll(version) : modelled_on;
}

__attribute__((visibility("default"))) bool is_capturing(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  return known(stream) && stream->capture != nullptr;
}

__attribute__((visibility("default"))) int32_t enqueue(cudaStream_t stream, const char* name, std::function<int32_t()> work) {
  const Lock lock(runtime().mutex);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  if (const int32_t code = enter(name)) {
    stream->broken = stream->capture != nullptr;
    return remember(code);
  }
  Operation operation{name, std::move(work)};
  if (stream->capture) {
    stream->capture->operations.push_back(std::move(operation));
    return kSuccess;
  }
  stream->queue.push_back(std::move(operation));
  stream->enqueued++;
  return kSuccess;
}

__attribute__((visibility("default"))) int32_t enqueue_kernel(const char* name, Dim3 grid, Dim3 block, size_t shared_bytes,
                                                             cudaStream_t stream, bool checked,
                                                             std::function<std::function<void()>()> prepare) {
  // Streams of other threads come and go.
  const Lock lock(runtime().mutex);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool empty = grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0;
  if (empty || threads > kMaxThreads || shared_bytes > runtime().shared_bytes || grid.y > 65535 || grid.z > 65535) {
    return remember(kInvalidConfiguration);
  }
  if (const int32_t code = injected_failure("launch")) {
    if (known(stream)) stream->broken = stream->capture != nullptr;
    return remember(code);
  }
  return enqueue(stream, name, [=, kernel = std::string(name), device = known(stream) ? stream->device : 0]() -> int32_t {
    std::string report;
    if (run_grid({kernel.c_str(), grid, block, shared_bytes, prepare(), checked, device}, report)) return kSuccess;
    std::fprintf(stderr, "CUDA emulation: %s\n", report.c_str());
    return kIllegalAddress;
  });
}

}  // namespace bao::emulation
