// What the files of the stand-in libcudart share: devices, streams, memory and how calls fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Values of enum cudaError.
enum : int32_t {
  kSuccess = 0,
  kInvalidValue = 1,
  kMemoryAllocation = 2,
  kInvalidConfiguration = 9,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidResourceHandle = 400,
  kIllegalState = 401,
  kNotReady = 600,
  kIllegalAddress = 700,
  kStreamCaptureUnsupported = 900,
  kStreamCaptureInvalidated = 901,
};

// What work gives that has to wait for another thread or process: it is called again until it gives something else.
constexpr int32_t kBlocked = -1;

struct Operation {
  std::string name;
  std::function<int32_t()> work;
};

struct EmulatedGraph {
  std::vector<Operation> operations;
  // Device memory that an executable graph takes.
  int device = 0;
  size_t bytes = 0;
};

struct EmulatedStream {
  int device = 0;
  std::deque<Operation> queue;
  // Operations enqueued and done since the stream was made.
  int64_t enqueued = 0, done = 0;
  // The graph being captured; `broken` once a call was made that a capture does not take.
  std::unique_ptr<EmulatedGraph> capture;
  bool broken = false;
};

struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  int64_t position = 0;
};

namespace bao::emulation {

struct Cell;

// Bytes with a page behind them that nobody may touch.
struct Block {
  uintptr_t begin = 0;
  size_t bytes = 0;
  size_t mapped = 0;
  void* base = nullptr;
  int device = 0;
  // Of the checker, from the first time that it looks.
  Cell* cells = nullptr;
};

using Blocks = std::map<uintptr_t, Block>;

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
  // Of a block, at the most.
  size_t shared_bytes = kMaxSharedBytes;
  std::vector<Injection> injections;
  // Where injections will be, until they are there.
  std::string injections_file;
  std::map<std::string, int64_t> calls;
  // By device.
  std::vector<size_t> used;
  Blocks device_memory;
  Blocks pinned_memory;
  std::set<EmulatedStream*> streams;
  // Once set, a device gives this answer to everything, as after a fault of a kernel.
  std::vector<int32_t> sticky;

  Runtime();

  size_t& used_by(int device) { return used[static_cast<size_t>(device)]; }
  int32_t& sticky_of(int device) { return sticky[static_cast<size_t>(device)]; }
};

Runtime& runtime();

using Lock = std::lock_guard<std::recursive_mutex>;

extern thread_local int current_device;
extern thread_local int32_t last_error;
// The stream that this thread captures in a mode which forbids calls that may wait for the device.
extern thread_local EmulatedStream* guarded_capture;

// Makes the code the thread's last error, and gives it back.
int32_t remember(int32_t code);

// What a call has to answer before it does anything: an injected failure, a missing or a broken device.
int32_t enter(const char* function);

// The same for calls that must not be made while the thread captures.
int32_t enter_unsafe(const char* function);

bool known(EmulatedStream* stream);

// An injected failure of a call that waits: what such a call reports has happened on the device, which does nothing any more.
int32_t failure_on(EmulatedStream& stream, const char* function);

// Does the stream's work up to a position. Returns the device's state. Where the work has to wait, others get the lock meanwhile: the caller must hold
// it once.
int32_t run_until(EmulatedStream& stream, int64_t position);
// False where the work has to wait.
bool run_front(EmulatedStream& stream);
// The same for all streams of a device.
int32_t run_device(int device);

// The allocation of device memory that holds an address, or null. For every access of a checked grid.
Block* block_at_address(const void* address);
Cell* cells_of(Block& block);

}  // namespace bao::emulation
