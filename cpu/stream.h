// A stream: a bounded queue of parallel tasks that a pool of threads executes in order, asynchronously to the caller.
//
// How to add an op (its row in src/device/ops.ts comes first):
//
//   struct ScaleArgs { const float* x; float* out; int64_t n; float factor; };
//   constexpr int64_t kScaleGrain = 4096;
//
//   static void scale_chunk(const ScaleArgs& a, const ChunkContext& c) {     // runs on any thread, chunks in any order
//     const int64_t begin = c.chunk * kScaleGrain, end = std::min(a.n, begin + kScaleGrain);
//     for (int64_t i = begin; i < end; i++) a.out[i] = a.x[i] * a.factor;
//   }
//
//   BAO_EXPORT int32_t bao_scale(void* stream, const float* x, float* out, int32_t n, float factor) {
//     Stream* s = Stream::from(stream);
//     if (!s) return kStreamClosed;
//     if (n < 0) return kBadShape;
//     if (!x || !out) return kNullPointer;
//     return s->enqueue(scale_chunk, ScaleArgs{x, out, n, factor}, ceil_div(n, kScaleGrain));   // 0 chunks: nothing to do
//   }
//
// Rules: arguments go by value into the queue (trivially copyable, at most Command::kArgBytes), data pointers are read when the
// task runs, never while it is enqueued (a recorded step is enqueued again without asking); a chunk must not block; a result must
// not depend on the number of chunks' threads.
// Files in cpu/*.cpp are compiled once for the architecture's baseline; files in cpu/kernels/*.cpp once per instruction set,
// inside namespace bao::BAO_ISA, and are reached through the table in kernels.h (`s->kernels()`).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "abi.h"
#include "chunk.h"

namespace bao {

struct KernelTable;

// Memory that a task reads once, chunk by chunk: chunk i from data + i * chunk_bytes on.
struct StreamedInput {
  const void* data = nullptr;
  int64_t chunk_bytes = 0;
};

// What is to be done: `run` with its arguments, for each chunk.
struct Command {
  static constexpr size_t kArgBytes = 240;

  void (*invoke)(const Command&, const ChunkContext&) = nullptr;
  void (*run)() = nullptr;
  StreamedInput input;
  int32_t num_chunks = 0;
  alignas(16) unsigned char args[kArgBytes];
};

// Recorded once, replayed as often as it is asked for.
struct CommandList {
  std::vector<Command> commands;
  // What was replayed last is done when this event is reached.
  int64_t last_event = 0;
};

// A command in the queue.
struct alignas(64) Task {
  // Low half of the task's number, then the number of chunks that nobody has taken yet: one word, so that a thread that comes
  // late can't take a chunk of the task that reuses the slot.
  std::atomic<uint64_t> ticket{0};
  std::atomic<int32_t> unfinished{0};
  // Threads that have nothing to do read a later task's chunks ahead, each one of its own: from the second on, since the thread
  // that makes the task begin takes the first. (Atomics, because a late reader may see the slot's next task.)
  std::atomic<const char*> input{nullptr};
  std::atomic<int64_t> input_chunk_bytes{0};
  std::atomic<int32_t> input_chunks{0};
  std::atomic<int32_t> chunks_read_ahead{0};
  int64_t counter = 0;
  // This slot's, or of a list.
  const Command* command = nullptr;
  Command own;
};

// One thread at a time may use a stream's functions.
class Stream {
 public:
  // Threads that work: the caller inside `wait` and num_threads - 1 of the pool.
  Stream(int32_t num_threads, const KernelTable* kernels);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // nullptr where the handle is no open stream.
  static Stream* from(void* handle);

  // Finishes what is enqueued, ends the threads and frees the buffers. The object itself stays, so that `from` can tell.
  void close();

  template <class Args>
  int32_t enqueue(void (*run)(const Args&, const ChunkContext&), const Args& args, int64_t num_chunks, StreamedInput input = {}) {
    static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= Command::kArgBytes);
    if (num_chunks <= 0) return kOk;
    if (num_chunks > INT32_MAX) return kBadShape;
    Command* command = next_command();
    if (!command) return kOutOfMemory;
    std::memcpy(command->args, &args, sizeof(Args));
    command->run = reinterpret_cast<void (*)()>(run);
    command->invoke = [](const Command& t, const ChunkContext& c) {
      reinterpret_cast<void (*)(const Args&, const ChunkContext&)>(t.run)(*reinterpret_cast<const Args*>(t.args), c);
    };
    command->input = input;
    command->num_chunks = static_cast<int32_t>(num_chunks);
    if (!recording_) publish(1);
    return kOk;
  }

  // From here on what is enqueued goes to `list`, and is not run.
  void begin_recording(CommandList* list) { recording_ = list; }
  void end_recording();
  // Enqueues what was recorded on this stream. The list must live until its last_event.
  void replay(CommandList& list);

  // Binds a thread, 0 the calling one, to processors (as the system numbers them); false where that can't be had.
  bool bind(int32_t thread, const int32_t* processors, int32_t count);

  // Makes sure that tasks enqueued from here on have that much scratch per thread and shared workspace. Growing waits for the
  // stream to be idle. kOk or kOutOfMemory.
  int32_t reserve(size_t scratch_bytes, size_t workspace_bytes);

  // The number of tasks enqueued so far: an event that is reached when all of them are done.
  int64_t record() const { return head_.load(std::memory_order_relaxed); }
  bool query(int64_t event);
  // Works on tasks until the event is reached.
  void wait(int64_t event);

  int32_t num_threads() const { return num_threads_; }
  const KernelTable& kernels() const { return *kernels_; }

 private:
  static constexpr int64_t kCapacity = 1024;
  // Commands of a list that threads are told of at once.
  static constexpr int64_t kReplayedAtOnce = 32;

  // What an idle thread reads ahead: of task number `task`, from `next` to `end`.
  struct ReadAhead {
    int64_t task = -1;
    const char* next = nullptr;
    const char* end = nullptr;
  };

  // Of the queue or of the list that is recorded; nullptr: out of memory.
  Command* next_command();
  // Of task `number`, once the task that had it is done.
  Task& slot(int64_t number);
  // Makes tasks of the commands in the next `count` slots.
  void publish(int64_t count);
  bool claimable() const;
  bool read_ahead(ReadAhead& ahead);
  bool begin_read_ahead(ReadAhead& ahead);
  bool run_one_chunk(int32_t thread);
  void run_chunk(Task& task, int32_t chunk, int32_t thread);
  void finish(int64_t number, int32_t thread);
  void pool_thread(int32_t thread);
  void stop_threads();
  template <class Reached>
  void park(Reached reached);
  void wake();

  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
  };
  // Only its own thread touches it while tasks run.
  struct alignas(64) ThreadState {
    Buffer scratch;
    ReadAhead ahead;
  };
  static bool grow(Buffer& buffer, size_t bytes);

  const int32_t num_threads_;
  const KernelTable* const kernels_;
  uint32_t magic_;
  std::unique_ptr<Task[]> ring_;
  CommandList* recording_ = nullptr;
  std::vector<ThreadState> thread_states_;
  Buffer workspace_;
  std::vector<std::thread> threads_;

  // Tasks enqueued, and tasks done: task number done_ is the one in work. Far apart: each is polled while the other is written.
  alignas(64) std::atomic<int64_t> head_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace bao
