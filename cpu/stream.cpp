#include "stream.h"

#include <algorithm>
#include <chrono>
#include <new>

#include "kernels.h"
#include "memory.h"
#include "platform.h"

namespace bao {
namespace {

constexpr uint32_t kOpen = 0xba05eedu;
constexpr uint32_t kClosed = 0;
// Long enough to bridge the gaps of a step (the host between two ops, a chunk of another thread), short beside a millisecond.
constexpr auto kSpinTime = std::chrono::microseconds(200);
constexpr int kPausesPerClockRead = 32;

// How far ahead of the task in work the next one with weights may be: past norms, rotation, attention.
constexpr int64_t kTasksAhead = 8;
constexpr int64_t kLineBytes = 64;
// Asked for between two looks at the task in work: as much as comes within about 0.1 us.
constexpr int64_t kReadAheadStep = 16 * kLineBytes;

// So much that it is still in the second-level cache when its task begins.
int64_t read_ahead_bytes() {
  static const int64_t bytes = second_level_cache_bytes() / 4;
  return bytes;
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as `ready` is, false after kSpinTime. Meanwhile does a little of what `work` does, as long as it returns true.
template <class Ready, class Work>
bool spin(Ready ready, Work work) {
  std::chrono::steady_clock::time_point deadline{};
  for (;;) {
    for (int i = 0; i < kPausesPerClockRead; i++) {
      if (ready()) return true;
      if (!work()) pause();
    }
    const auto now = std::chrono::steady_clock::now();
    if (deadline == std::chrono::steady_clock::time_point{}) deadline = now + kSpinTime;
    if (now >= deadline) return ready();
  }
}

}  // namespace

Stream::Stream(int32_t num_threads, const KernelTable* kernels)
    : num_threads_(num_threads),
      kernels_(kernels),
      magic_(kOpen),
      ring_(new Task[kCapacity]),
      thread_states_(static_cast<size_t>(num_threads)) {
  threads_.reserve(static_cast<size_t>(num_threads));
  try {
    for (int32_t i = 1; i < num_threads; i++) threads_.emplace_back([this, i] { pool_thread(i); });
  } catch (...) {
    stop_threads();
    throw;
  }
}

void Stream::stop_threads() {
  stopping_.store(true, std::memory_order_seq_cst);
  wake();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Stream::close() {
  wait(record());
  magic_ = kClosed;
  stop_threads();
  for (ThreadState& state : thread_states_) unmap_memory(state.scratch.data, state.scratch.bytes);
  thread_states_.clear();
  unmap_memory(workspace_.data, workspace_.bytes);
  ring_.reset();
}

Stream* Stream::from(void* handle) {
  Stream* stream = static_cast<Stream*>(handle);
  return stream && stream->magic_ == kOpen ? stream : nullptr;
}

bool Stream::bind(int32_t thread, const int32_t* processors, int32_t count) {
  if (thread < 0 || thread >= num_threads_) return false;
  return bind_thread(thread == 0 ? pthread_self() : threads_[static_cast<size_t>(thread) - 1].native_handle(), processors, count);
}

bool Stream::grow(Buffer& buffer, size_t bytes) {
  if (bytes <= buffer.bytes) return true;
  const size_t rounded = (bytes + 4095) / 4096 * 4096;
  void* data = rounded >= bytes ? map_memory(rounded) : nullptr;
  if (!data) return false;
  unmap_memory(buffer.data, buffer.bytes);
  buffer = {data, rounded};
  return true;
}

int32_t Stream::reserve(size_t scratch_bytes, size_t workspace_bytes) {
  if (scratch_bytes <= thread_states_.front().scratch.bytes && workspace_bytes <= workspace_.bytes) return kOk;
  wait(record());
  if (!grow(workspace_, workspace_bytes)) return kOutOfMemory;
  // The caller's buffer grows last: it stands for all of them in the test above.
  for (size_t i = thread_states_.size(); i-- > 0;) {
    if (!grow(thread_states_[i].scratch, scratch_bytes)) return kOutOfMemory;
  }
  return kOk;
}

Command* Stream::next_command() {
  if (!recording_) {
    Task& task = slot(head_.load(std::memory_order_relaxed));
    task.command = &task.own;
    return &task.own;
  }
  try {
    return &recording_->commands.emplace_back();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

Task& Stream::slot(int64_t number) {
  if (number - done_.load(std::memory_order_acquire) >= kCapacity) wait(number - kCapacity + 1);
  return ring_[static_cast<size_t>(number % kCapacity)];
}

void Stream::publish(int64_t count) {
  const int64_t first = head_.load(std::memory_order_relaxed);
  for (int64_t number = first; number < first + count; number++) {
    Task& task = ring_[static_cast<size_t>(number % kCapacity)];
    const Command& command = *task.command;
    task.unfinished.store(command.num_chunks, std::memory_order_relaxed);
    task.input.store(static_cast<const char*>(command.input.data), std::memory_order_relaxed);
    task.input_chunk_bytes.store(command.input.chunk_bytes, std::memory_order_relaxed);
    task.input_chunks.store(command.num_chunks, std::memory_order_relaxed);
    task.chunks_read_ahead.store(0, std::memory_order_relaxed);
    task.counter = 0;
    task.ticket.store(static_cast<uint64_t>(number) << 32 | static_cast<uint32_t>(command.num_chunks), std::memory_order_release);
  }
  head_.store(first + count, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) wake();
}

void Stream::end_recording() {
  if (recording_) recording_->commands.shrink_to_fit();
  recording_ = nullptr;
}

void Stream::replay(CommandList& list) {
  const int64_t size = static_cast<int64_t>(list.commands.size());
  for (int64_t begin = 0; begin < size; begin += kReplayedAtOnce) {
    const int64_t count = std::min(kReplayedAtOnce, size - begin);
    const int64_t first = head_.load(std::memory_order_relaxed);
    for (int64_t i = 0; i < count; i++) slot(first + i).command = &list.commands[static_cast<size_t>(begin + i)];
    publish(count);
  }
  list.last_event = record();
}

bool Stream::claimable() const {
  const int64_t number = done_.load(std::memory_order_acquire);
  if (number == head_.load(std::memory_order_acquire)) return false;
  const uint64_t ticket = ring_[static_cast<size_t>(number % kCapacity)].ticket.load(std::memory_order_acquire);
  return ticket >> 32 == static_cast<uint32_t>(number) && static_cast<uint32_t>(ticket) != 0;
}

// Takes a chunk of the next task that streams an input.
bool Stream::begin_read_ahead(ReadAhead& ahead) {
  const int64_t now = done_.load(std::memory_order_acquire);
  const int64_t end = std::min(head_.load(std::memory_order_acquire), now + kTasksAhead);
  for (int64_t number = std::max(now, ahead.task) + 1; number < end; number++) {
    Task& task = ring_[static_cast<size_t>(number % kCapacity)];
    const char* input = task.input.load(std::memory_order_relaxed);
    if (!input) continue;
    const int64_t chunk_bytes = task.input_chunk_bytes.load(std::memory_order_relaxed);
    const int32_t chunk = task.chunks_read_ahead.fetch_add(1, std::memory_order_relaxed) + 1;
    ahead.task = number;
    ahead.next = input + chunk * chunk_bytes;
    ahead.end = ahead.next + (chunk < task.input_chunks.load(std::memory_order_relaxed) ? std::min(chunk_bytes, read_ahead_bytes()) : 0);
    return ahead.next < ahead.end;
  }
  return false;
}

// Asks for a little of what a later task needs; false where there is nothing to read ahead.
bool Stream::read_ahead(ReadAhead& ahead) {
  if (ahead.next >= ahead.end && !begin_read_ahead(ahead)) return false;
  const char* end = std::min(ahead.end, ahead.next + kReadAheadStep);
  for (; ahead.next < end; ahead.next += kLineBytes) __builtin_prefetch(ahead.next, 0, 2);
  return true;
}

bool Stream::run_one_chunk(int32_t thread) {
  const int64_t number = done_.load(std::memory_order_acquire);
  if (number == head_.load(std::memory_order_acquire)) return false;
  Task& task = ring_[static_cast<size_t>(number % kCapacity)];
  uint64_t ticket = task.ticket.load(std::memory_order_acquire);
  do {
    if (ticket >> 32 != static_cast<uint32_t>(number) || static_cast<uint32_t>(ticket) == 0) return false;
  } while (!task.ticket.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire));

  // From here on the slot is this task's until the chunk is counted as finished.
  run_chunk(task, task.command->num_chunks - static_cast<int32_t>(static_cast<uint32_t>(ticket)), thread);
  if (task.unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) finish(number, thread);
  return true;
}

void Stream::run_chunk(Task& task, int32_t chunk, int32_t thread) {
  const ThreadState& state = thread_states_[static_cast<size_t>(thread)];
  const ChunkContext context{chunk, task.command->num_chunks, thread, num_threads_, state.scratch.data, workspace_.data, &task.counter};
  task.command->invoke(*task.command, context);
}

// Task `number` is done. Tasks of one chunk that follow are run at once by the thread that knows of it: nobody else can take them before done_
// says that it is their turn, and for a microsecond's work telling others takes as long. (Without a pool every task is one chunk.)
void Stream::finish(int64_t number, int32_t thread) {
  int64_t next = number + 1;
  for (; num_threads_ > 1 && next < head_.load(std::memory_order_acquire); next++) {
    Task& task = ring_[static_cast<size_t>(next % kCapacity)];
    if (task.command->num_chunks != 1) break;
    run_chunk(task, 0, thread);
  }
  done_.store(next, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) wake();
}

template <class Reached>
void Stream::park(Reached reached) {
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  // Pairs with the store to head_ or done_ that comes before the load of sleepers_: either that thread sees the sleeper, or
  // the test below sees its store.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  condition_.wait(lock, reached);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void Stream::wake() {
  { const std::lock_guard<std::mutex> lock(mutex_); }
  condition_.notify_all();
}

void Stream::pool_thread(int32_t thread) {
  const auto ready = [this] { return claimable() || stopping_.load(std::memory_order_acquire); };
  const auto ahead = [this, thread] { return read_ahead(thread_states_[static_cast<size_t>(thread)].ahead); };
  for (;;) {
    while (run_one_chunk(thread)) {
    }
    if (stopping_.load(std::memory_order_acquire)) return;
    if (!spin(ready, ahead)) park(ready);
  }
}

bool Stream::query(int64_t event) {
  if (done_.load(std::memory_order_acquire) >= event) return true;
  // Without a pool nobody else would ever get there: polling makes progress, chunk by chunk.
  if (num_threads_ == 1) run_one_chunk(0);
  return done_.load(std::memory_order_acquire) >= event;
}

void Stream::wait(int64_t event) {
  const int64_t last = head_.load(std::memory_order_relaxed);
  const int64_t target = event < last ? event : last;
  const auto reached = [this, target] { return done_.load(std::memory_order_acquire) >= target; };
  const auto ready = [this, &reached] { return reached() || claimable(); };
  const auto ahead = [this] { return read_ahead(thread_states_.front().ahead); };
  while (!reached()) {
    if (run_one_chunk(0)) continue;
    if (!spin(ready, ahead)) park(ready);
  }
}

}  // namespace bao

using bao::Stream;

// A stream of `num_threads` threads, the waiting caller included, and kernels of at most the given Isa (-1: the fastest
// here). nullptr where the threads, the memory or the kernels can't be had.
BAO_EXPORT void* bao_stream_create(int32_t num_threads, int32_t isa) {
  if (num_threads < 1 || num_threads > 4096) return nullptr;
  try {
    const bao::KernelTable* kernels = bao::kernel_table(isa);
    return kernels ? new Stream(num_threads, kernels) : nullptr;
  } catch (...) {
    return nullptr;
  }
}

// Finishes what is enqueued first. A late op on the handle is refused with an error code.
BAO_EXPORT int32_t bao_stream_destroy(void* handle) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  stream->close();
  return bao::kOk;
}

// kBadShape where there is no such thread (0: the calling one) or processor, or where threads can't be bound.
BAO_EXPORT int32_t bao_stream_bind(void* handle, int32_t thread, const int32_t* processors, int32_t count) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  if (!processors) return bao::kNullPointer;
  return stream->bind(thread, processors, count) ? bao::kOk : bao::kBadShape;
}

// The event of all that was enqueued so far, or -1 for a closed stream.
BAO_EXPORT int64_t bao_stream_record(void* handle) {
  Stream* stream = Stream::from(handle);
  return stream ? stream->record() : -1;
}

// 1 when the event is reached, 0 when not yet, -1 for a closed stream.
BAO_EXPORT int32_t bao_stream_query(void* handle, int64_t event) {
  Stream* stream = Stream::from(handle);
  return stream ? stream->query(event) : -1;
}

BAO_EXPORT int32_t bao_stream_wait(void* handle, int64_t event) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  stream->wait(event);
  return bao::kOk;
}

// From here on ops are checked as ever and recorded, not run, until the list's end is asked for. nullptr for a closed stream, or out of memory.
BAO_EXPORT void* bao_stream_begin_list(void* handle) {
  Stream* stream = Stream::from(handle);
  auto* list = stream ? new (std::nothrow) bao::CommandList() : nullptr;
  if (list) stream->begin_recording(list);
  return list;
}

BAO_EXPORT int32_t bao_stream_end_list(void* handle) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  stream->end_recording();
  return bao::kOk;
}

// Enqueues a list that was recorded on this stream.
BAO_EXPORT int32_t bao_stream_replay(void* handle, void* list) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  if (!list) return bao::kNullPointer;
  stream->replay(*static_cast<bao::CommandList*>(list));
  return bao::kOk;
}

// Frees a list of the stream, once what was replayed of it is done.
BAO_EXPORT int32_t bao_stream_destroy_list(void* handle, void* address) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  if (!address) return bao::kNullPointer;
  auto* list = static_cast<bao::CommandList*>(address);
  stream->wait(list->last_event);
  delete list;
  return bao::kOk;
}

// The instruction set in use.
BAO_EXPORT int32_t bao_stream_isa(void* handle) {
  Stream* stream = Stream::from(handle);
  return stream ? stream->kernels().isa : -1;
}

namespace {

struct CopyArgs {
  const char* source;
  char* destination;
  int64_t bytes;
};
constexpr int64_t kCopyGrain = 1 << 18;

void copy_chunk(const CopyArgs& a, const bao::ChunkContext& c) {
  const int64_t begin = c.chunk * kCopyGrain;
  const int64_t bytes = a.bytes - begin < kCopyGrain ? a.bytes - begin : kCopyGrain;
  std::memcpy(a.destination + begin, a.source + begin, static_cast<size_t>(bytes));
}

}  // namespace

BAO_EXPORT int32_t bao_copy_bytes(void* handle, const char* source, char* destination, int64_t bytes) {
  Stream* stream = Stream::from(handle);
  if (!stream) return bao::kStreamClosed;
  if (bytes < 0) return bao::kBadShape;
  if (bytes > 0 && (!source || !destination)) return bao::kNullPointer;
  return stream->enqueue(copy_chunk, CopyArgs{source, destination, bytes}, bao::ceil_div(bytes, kCopyGrain));
}
