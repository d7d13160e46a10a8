// A stand-in for libcudart. Its functions have the names, arguments and codes of cuda_runtime_api.h; devices are memory and streams of this
// process.
//
// Streams are lazy: work waits until a call has to wait for it, and is then done by the caller, no further than was asked for.
// So a read of results without a synchronization finds them missing, always and not only in a race.
//
// BAO_CUDA_EMULATION_DEVICES: how many (2), BAO_CUDA_EMULATION_MEMORY: bytes of each (2 GiB).
// BAO_CUDA_EMULATION_FAIL: "FUNCTION@CALL=CODE,…" makes that call (from 1 on) fail: "cudaMalloc@12=2,launch@100=719".
#include "runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

using bao::emulation::Allocation;
using bao::emulation::Dim3;
using Work = std::function<int32_t()>;

// Values of enum cudaError.
enum : int32_t {
  kSuccess = 0,
  kInvalidValue = 1,
  kMemoryAllocation = 2,
  kInvalidConfiguration = 9,
  kInvalidDevice = 101,
  kInvalidResourceHandle = 400,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchFailure = 719,
  kStreamCaptureUnsupported = 900,
  kStreamCaptureInvalidated = 901,
  kIllegalState = 401,
};

struct Operation {
  std::string name;
  Work work;
};

struct EmulatedGraph {
  std::vector<Operation> operations;
};

struct EmulatedStream {
  int device = 0;
  std::deque<Operation> queue;
  // Operations enqueued and done since the stream was made.
  int64_t enqueued = 0, done = 0;
  std::unique_ptr<EmulatedGraph> capture;
};

struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  int64_t position = 0;
};

namespace {

constexpr size_t kAlignment = 256;

struct Block {
  size_t bytes;
  size_t mapped;
  void* base;
  int device;
};

struct Injection {
  std::string function;
  int64_t call;
  int32_t code;
};

// Everything there is, behind one lock: engine cores in several threads take turns.
struct Runtime {
  std::recursive_mutex mutex;
  int num_devices = 2;
  size_t memory_bytes = size_t{2} << 30;
  std::vector<Injection> injections;
  std::map<std::string, int64_t> calls;
  std::vector<size_t> used;
  std::map<uintptr_t, Block> device_memory;
  std::map<uintptr_t, Block> pinned_memory;
  std::set<EmulatedStream*> streams;
  // Once set, a device gives this answer to everything, as after a fault of a kernel.
  std::vector<int32_t> sticky;

  Runtime() {
    if (const char* devices = std::getenv("BAO_CUDA_EMULATION_DEVICES")) num_devices = std::atoi(devices);
    if (const char* bytes = std::getenv("BAO_CUDA_EMULATION_MEMORY")) memory_bytes = std::strtoull(bytes, nullptr, 10);
    if (const char* list = std::getenv("BAO_CUDA_EMULATION_FAIL")) parse_injections(list);
    used.resize(static_cast<size_t>(std::max(num_devices, 0)));
    sticky.resize(used.size());
  }

  void parse_injections(const std::string& list) {
    for (size_t at = 0; at < list.size();) {
      const size_t end = std::min(list.find(',', at), list.size());
      const std::string item = list.substr(at, end - at);
      const size_t call = item.find('@'), code = item.find('=');
      if (call != std::string::npos && code != std::string::npos) {
        injections.push_back({item.substr(0, call), std::atoll(item.c_str() + call + 1), std::atoi(item.c_str() + code + 1)});
      }
      at = end + 1;
    }
  }
};

Runtime& runtime() {
  static auto* instance = new Runtime();
  return *instance;
}

thread_local int current_device = 0;
thread_local int32_t last_error = kSuccess;

using Lock = std::lock_guard<std::recursive_mutex>;

int32_t remember(int32_t code) {
  if (code != kSuccess && code != kNotReady) last_error = code;
  return code;
}

// What a call has to answer before it does anything: an injected failure, a missing or a broken device.
int32_t enter(const char* function) {
  Runtime& r = runtime();
  if (const int32_t code = bao::emulation::injected_failure(function)) return code;
  if (current_device >= r.num_devices) return r.num_devices == 0 ? 100 : kInvalidDevice;
  return r.sticky[static_cast<size_t>(current_device)];
}

const Block* block_of(const std::map<uintptr_t, Block>& blocks, const void* address, uintptr_t* begin = nullptr) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return nullptr;
  --next;
  if (begin) *begin = next->first;
  return at <= next->first + next->second.bytes ? &next->second : nullptr;
}

bool inside(const std::map<uintptr_t, Block>& blocks, const void* address, size_t bytes) {
  uintptr_t begin = 0;
  const Block* block = block_of(blocks, address, &begin);
  return block && reinterpret_cast<uintptr_t>(address) + bytes <= begin + block->bytes;
}

// The block ends at a page that nobody may touch, as near as its alignment lets it.
void* map_block(size_t bytes, Block& block) {
  constexpr size_t kPage = 4096;
  const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  block.mapped = (room + kPage - 1) / kPage * kPage + kPage;
  block.bytes = bytes;
  block.base = mmap(nullptr, block.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block.base == MAP_FAILED) return nullptr;
  char* guard = static_cast<char*>(block.base) + block.mapped - kPage;
  mprotect(guard, kPage, PROT_NONE);
  return guard - room;
}

int32_t run_front(EmulatedStream& stream) {
  Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  stream.done++;
  int32_t& sticky = runtime().sticky[static_cast<size_t>(stream.device)];
  if (sticky != kSuccess) return sticky;
  sticky = operation.work();
  return sticky;
}

int32_t run_until(EmulatedStream& stream, int64_t position) {
  while (stream.done < position && !stream.queue.empty()) run_front(stream);
  return runtime().sticky[static_cast<size_t>(stream.device)];
}

int32_t run_device(int device) {
  for (EmulatedStream* stream : runtime().streams) {
    if (stream->device == device) run_until(*stream, stream->enqueued);
  }
  return runtime().sticky[static_cast<size_t>(device)];
}

bool known(EmulatedStream* stream) { return stream && runtime().streams.count(stream) > 0; }

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

namespace bao::emulation {

Allocation find_allocation(const void* address) {
  uintptr_t begin = 0;
  const Block* block = address ? block_of(runtime().device_memory, address, &begin) : nullptr;
  return block ? Allocation{begin, begin + block->bytes} : Allocation{};
}

__attribute__((visibility("default"))) int32_t injected_failure(const char* function) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (r.injections.empty()) return kSuccess;
  const int64_t call = ++r.calls[function];
  for (const Injection& each : r.injections) {
    if (each.function == function && each.call == call) return each.code;
  }
  return kSuccess;
}

__attribute__((visibility("default"))) int32_t enqueue(cudaStream_t stream, const char* name, std::function<int32_t()> work) {
  const Lock lock(runtime().mutex);
  if (const int32_t code = enter(name)) return remember(code);
  if (!known(stream)) return remember(kInvalidResourceHandle);
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
                                                             cudaStream_t stream,
                                                             std::function<std::function<void()>()> prepare) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool empty = grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0;
  if (empty || threads > kMaxThreads || shared_bytes > kMaxSharedBytes || grid.y > 65535 || grid.z > 65535) {
    return remember(kInvalidConfiguration);
  }
  if (const int32_t code = injected_failure("launch")) return remember(code);
  return enqueue(stream, name, [=, kernel = std::string(name)]() -> int32_t {
    std::string report;
    if (run_grid({kernel.c_str(), grid, block, shared_bytes, prepare()}, report)) return kSuccess;
    std::fprintf(stderr, "CUDA emulation: %s\n", report.c_str());
    return kIllegalAddress;
  });
}

}  // namespace bao::emulation

// --- Devices ---

EXPORT int32_t cudaGetDeviceCount(int* count) {
  const int devices = runtime().num_devices;
  *count = devices;
  return devices > 0 ? kSuccess : remember(100);
}

EXPORT int32_t cudaSetDevice(int device) {
  if (device < 0 || device >= runtime().num_devices) return remember(kInvalidDevice);
  current_device = device;
  return kSuccess;
}

EXPORT int32_t cudaGetDevice(int* device) {
  *device = current_device;
  return kSuccess;
}

EXPORT int32_t cudaDeviceGetAttribute(int* value, int attribute, int device) {
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

// The name is the struct's first member, 256 bytes, in every version; the rest stays untouched.
EXPORT int32_t cudaGetDeviceProperties(void* properties, int device) {
  if (device < 0 || device >= runtime().num_devices) return remember(kInvalidDevice);
  std::snprintf(static_cast<char*>(properties), 256, "CUDA emulation %d", device);
  return kSuccess;
}

EXPORT int32_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}

EXPORT int32_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}

EXPORT int32_t cudaFuncSetAttribute(const void*, int, int) { return kSuccess; }

// --- Errors ---

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

// --- Memory ---

EXPORT int32_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (const int32_t code = enter("cudaMemGetInfo")) return remember(code);
  *total_bytes = r.memory_bytes;
  *free_bytes = r.memory_bytes - r.used[static_cast<size_t>(current_device)];
  return kSuccess;
}

EXPORT int32_t cudaMalloc(void** pointer, size_t bytes) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *pointer = nullptr;
  if (const int32_t code = enter("cudaMalloc")) return remember(code);
  if (bytes == 0) return kSuccess;
  size_t& used = r.used[static_cast<size_t>(current_device)];
  if (bytes > r.memory_bytes - used) return remember(kMemoryAllocation);
  Block block{};
  void* memory = map_block(bytes, block);
  if (!memory) return remember(kMemoryAllocation);
  // What was never written is NaN, as good as any.
  if (bytes <= (size_t{1} << 20)) std::memset(memory, 0xff, bytes);
  block.device = current_device;
  used += bytes;
  r.device_memory.emplace(reinterpret_cast<uintptr_t>(memory), block);
  *pointer = memory;
  return kSuccess;
}

EXPORT int32_t cudaFree(void* pointer) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (!pointer) return kSuccess;
  const auto found = r.device_memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == r.device_memory.end()) return remember(kInvalidValue);
  const int32_t code = run_device(found->second.device);
  r.used[static_cast<size_t>(found->second.device)] -= found->second.bytes;
  munmap(found->second.base, found->second.mapped);
  r.device_memory.erase(found);
  return remember(code);
}

EXPORT int32_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *pointer = nullptr;
  if (const int32_t code = enter("cudaHostAlloc")) return remember(code);
  Block block{};
  void* memory = map_block(bytes, block);
  if (!memory) return remember(kMemoryAllocation);
  r.pinned_memory.emplace(reinterpret_cast<uintptr_t>(memory), block);
  *pointer = memory;
  return kSuccess;
}

EXPORT int32_t cudaFreeHost(void* pointer) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  const auto found = r.pinned_memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == r.pinned_memory.end()) return remember(kInvalidValue);
  munmap(found->second.base, found->second.mapped);
  r.pinned_memory.erase(found);
  return kSuccess;
}

// kind: 1 host to device, 2 device to host, 3 device to device. From pageable memory the source is read before the call returns; to
// pageable memory the call waits: both as the real library does.
EXPORT int32_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, cudaStream_t stream) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (kind < 1 || kind > 3) return remember(kInvalidValue);
  if (bytes == 0) return kSuccess;
  const bool to_device = kind != 2, from_device = kind != 1;
  if (to_device && !inside(r.device_memory, to, bytes)) return remember(kInvalidValue);
  if (from_device && !inside(r.device_memory, from, bytes)) return remember(kInvalidValue);
  if (kind == 1 && !inside(r.pinned_memory, from, bytes)) {
    const auto* begin = static_cast<const unsigned char*>(from);
    return bao::emulation::enqueue(stream, "cudaMemcpyAsync",
                                   [to, copy = std::vector<unsigned char>(begin, begin + bytes)]() -> int32_t {
                                     std::memcpy(to, copy.data(), copy.size());
                                     return kSuccess;
                                   });
  }
  const int32_t code = bao::emulation::enqueue(stream, "cudaMemcpyAsync", [=]() -> int32_t {
    std::memmove(to, from, bytes);
    return kSuccess;
  });
  if (code != kSuccess || kind != 2 || inside(r.pinned_memory, to, bytes)) return code;
  if (stream->capture) return remember(kStreamCaptureUnsupported);
  return remember(run_until(*stream, stream->enqueued));
}

EXPORT int32_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return kSuccess;
  if (!inside(runtime().device_memory, to, bytes)) return remember(kInvalidValue);
  return bao::emulation::enqueue(stream, "cudaMemsetAsync", [=]() -> int32_t {
    std::memset(to, value, bytes);
    return kSuccess;
  });
}

// --- Streams and events ---

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
  if (!known(stream)) return remember(kInvalidResourceHandle);
  run_until(*stream, stream->enqueued);
  runtime().streams.erase(stream);
  delete stream;
  return kSuccess;
}

EXPORT int32_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  if (stream->capture) return remember(kStreamCaptureUnsupported);
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
  if (event->stream->done < event->position && !event->stream->queue.empty()) run_front(*event->stream);
  if (const int32_t code = runtime().sticky[static_cast<size_t>(event->stream->device)]) return remember(code);
  return event->stream->done < event->position ? kNotReady : kSuccess;
}

EXPORT int32_t cudaEventSynchronize(EmulatedEvent* event) {
  const Lock lock(runtime().mutex);
  if (!event) return remember(kInvalidResourceHandle);
  return known(event->stream) ? remember(run_until(*event->stream, event->position)) : kSuccess;
}

// --- Graphs ---

EXPORT int32_t cudaStreamBeginCapture(cudaStream_t stream, int) {
  const Lock lock(runtime().mutex);
  if (!known(stream)) return remember(kInvalidResourceHandle);
  if (stream->capture) return remember(kIllegalState);
  stream->capture = std::make_unique<EmulatedGraph>();
  return kSuccess;
}

EXPORT int32_t cudaStreamEndCapture(cudaStream_t stream, EmulatedGraph** graph) {
  const Lock lock(runtime().mutex);
  *graph = nullptr;
  if (!known(stream) || !stream->capture) return remember(kIllegalState);
  *graph = stream->capture.release();
  return kSuccess;
}

// An executable graph is a copy: the graph may be destroyed.
EXPORT int32_t cudaGraphInstantiate(EmulatedGraph** executable, EmulatedGraph* graph, unsigned long long) {
  const Lock lock(runtime().mutex);
  *executable = nullptr;
  if (const int32_t code = enter("cudaGraphInstantiate")) return remember(code);
  *executable = new EmulatedGraph(*graph);
  return kSuccess;
}

EXPORT int32_t cudaGraphLaunch(EmulatedGraph* executable, cudaStream_t stream) {
  if (!executable) return remember(kInvalidResourceHandle);
  // Shared, so that the executable may be destroyed while its launch still waits.
  auto operations = std::make_shared<std::vector<Operation>>(executable->operations);
  return bao::emulation::enqueue(stream, "cudaGraphLaunch", [operations]() -> int32_t {
    for (const Operation& each : *operations) {
      if (const int32_t code = each.work()) return code;
    }
    return kSuccess;
  });
}

EXPORT int32_t cudaGraphDestroy(EmulatedGraph* graph) {
  delete graph;
  return kSuccess;
}

EXPORT int32_t cudaGraphExecDestroy(EmulatedGraph* executable) {
  delete executable;
  return kSuccess;
}
