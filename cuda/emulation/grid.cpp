#include "grid.h"

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <utility>
#include <vector>

#include "checker.h"
#include "fiber.h"

namespace bao::emulation {

Builtins* builtins = nullptr;

namespace {

// Around shared memory, for the checker to see accesses that miss it; the rest of the program has nothing there.
constexpr size_t kSharedMargin = 64 << 10;

enum class State { kReady, kInWarp, kAtBarrier, kDone };

struct PendingCopy {
  void* to;
  const void* from;
  unsigned bytes, source_bytes;
};

struct Thread {
  Fiber fiber;
  Builtins builtins;
  State state = State::kDone;
  unsigned warp = 0;
  std::vector<PendingCopy> open_group;
  std::deque<std::vector<PendingCopy>> groups;
};

// An instruction at which lanes wait for the others of its mask.
struct Meeting {
  const char* what;
  uint32_t mask, arrived;
};

struct Warp {
  uint32_t lanes = 0;  // that exist
  uint32_t done = 0;   // that have returned
  // Of masks that have no lane in common.
  std::vector<Meeting> meetings;
  void* slots[kWarpSize];

  void reset() {
    lanes = done = 0;
    meetings.clear();
  }
  Meeting* meeting_of(uint32_t lanes_of_mask) {
    for (Meeting& each : meetings) {
      if (each.mask & lanes_of_mask) return &each;
    }
    return nullptr;
  }
};

class Runner {
 public:
  bool run(const Grid& grid, std::string& report);
  void block_barrier();
  void warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const*, uint32_t));
  [[noreturn]] void fault(const std::string& what);
  Thread& current() { return threads_[current_]; }
  // A thread of the running warp.
  Thread& lane(unsigned lane) { return threads_[current().warp * kWarpSize + lane]; }

 private:
  static void entry();
  bool run_blocks(const Grid& grid, std::string& report);
  void begin_block(Dim3 block_idx);
  bool run_block();
  bool run_warp(unsigned warp);
  void release_barrier();
  void report_deadlock();
  std::string where(const Builtins& thread) const;

  const Grid* grid_ = nullptr;
  std::string report_;
  bool faulted_ = false;
  unsigned num_threads_ = 0, num_warps_ = 0, current_ = 0, at_barrier_ = 0, num_done_ = 0;
  std::array<Thread, kMaxThreads> threads_;
  std::array<Warp, kMaxThreads / kWarpSize> warps_;
  unsigned char* const shared_ = reinterpret_cast<unsigned char*>(shared_region().begin + kSharedMargin);
};

Runner& runner() {
  // Never destroyed: stacks are kept until the process ends.
  static Runner* instance = new Runner();
  return *instance;
}

// Blocks, warps and lanes run in falling order where it is asked for: code that leans on an order without a barrier then shows.
bool reversed() {
  static const bool value = [] {
    const char* order = std::getenv("BAO_CUDA_EMULATION_ORDER");
    return order && std::strcmp(order, "reverse") == 0;
  }();
  return value;
}

unsigned in_order(unsigned i, unsigned n) { return reversed() ? n - 1 - i : i; }

void Runner::entry() {
  Runner& self = runner();
  self.grid_->thread_main();
  Thread& thread = self.current();
  if (!thread.open_group.empty() || !thread.groups.empty()) self.fault("the thread returned with cp.async copies in flight");
  thread.state = State::kDone;
  self.num_done_++;
  self.warps_[thread.warp].done |= 1u << thread.builtins.lane;
  thread.fiber.leave();
}

void Runner::begin_block(Dim3 block_idx) {
  at_barrier_ = num_done_ = 0;
  for (unsigned w = 0; w < num_warps_; w++) warps_[w].reset();
  for (unsigned t = 0; t < num_threads_; t++) {
    Thread& thread = threads_[t];
    const Dim3 b = grid_->block;
    thread.warp = t / kWarpSize;
    thread.builtins = {{t % b.x, t / b.x % b.y, t / (b.x * b.y)}, block_idx, b, grid_->grid, t, t % kWarpSize, shared_,
                       grid_->shared_bytes};
    thread.state = State::kReady;
    thread.open_group.clear();
    thread.groups.clear();
    thread.fiber.start(entry);
    warps_[thread.warp].lanes |= 1u << thread.builtins.lane;
  }
  // All ones: NaN as float, bfloat16 and float16, and an index that no array has.
  std::memset(shared_, 0xff, grid_->shared_bytes);
  if (grid_->checked) checker().begin_block(block_idx);
}

bool Runner::run_warp(unsigned warp) {
  const unsigned first = warp * kWarpSize;
  const unsigned lanes = std::min(kWarpSize, num_threads_ - first);
  bool progress = false;
  for (bool again = true; again && !faulted_;) {
    again = false;
    for (unsigned i = 0; i < lanes && !faulted_; i++) {
      current_ = first + in_order(i, lanes);
      Thread& thread = threads_[current_];
      if (thread.state != State::kReady) continue;
      builtins = &thread.builtins;
      thread.fiber.enter();
      again = progress = true;
    }
  }
  return progress;
}

void Runner::release_barrier() {
  if (at_barrier_ == 0 || at_barrier_ + num_done_ < num_threads_) return;
  at_barrier_ = 0;
  if (grid_->checked) checker().barrier();
  for (unsigned t = 0; t < num_threads_; t++) {
    if (threads_[t].state == State::kAtBarrier) threads_[t].state = State::kReady;
  }
}

std::string Runner::where(const Builtins& thread) const {
  return "kernel " + std::string(grid_->kernel) + ", block " + text(thread.block_idx) + ", thread " + text(thread.thread_idx) + ": ";
}

void Runner::report_deadlock() {
  for (current_ = 0; current_ < num_threads_; current_++) {
    Thread& thread = threads_[current_];
    if (thread.state == State::kDone) continue;
    faulted_ = true;
    const Meeting* meeting = warps_[thread.warp].meeting_of(1u << thread.builtins.lane);
    const std::string barrier = thread.state == State::kAtBarrier || !meeting ? "__syncthreads" : meeting->what;
    report_ = where(thread.builtins) + "waits at " + barrier + " for threads that never come";
    return;
  }
}

bool Runner::run_block() {
  while (num_done_ < num_threads_) {
    bool progress = false;
    for (unsigned i = 0; i < num_warps_ && !faulted_; i++) progress |= run_warp(in_order(i, num_warps_));
    if (faulted_) return false;
    release_barrier();
    if (!progress && num_done_ < num_threads_) report_deadlock();
  }
  return !faulted_;
}

bool Runner::run_blocks(const Grid& grid, std::string& report) {
  grid_ = &grid;
  faulted_ = false;
  num_threads_ = grid.block.x * grid.block.y * grid.block.z;
  num_warps_ = (num_threads_ + kWarpSize - 1) / kWarpSize;
  const uint64_t blocks = uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  for (uint64_t i = 0; i < blocks; i++) {
    const uint64_t b = reversed() ? blocks - 1 - i : i;
    begin_block({static_cast<unsigned>(b % grid.grid.x), static_cast<unsigned>(b / grid.grid.x % grid.grid.y),
                 static_cast<unsigned>(b / grid.grid.x / grid.grid.y)});
    if (!run_block()) {
      report = report_;
      return false;
    }
  }
  return true;
}

bool Runner::run(const Grid& grid, std::string& report) {
  if (grid.checked) checker().begin_grid(grid);
  const bool passed = run_blocks(grid, report);
  checker().end_grid();
  return passed;
}

void Runner::block_barrier() {
  Thread& thread = current();
  thread.state = State::kAtBarrier;
  at_barrier_++;
  thread.fiber.leave();
}

void Runner::warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const*, uint32_t)) {
  Thread& thread = current();
  Warp& warp = warps_[thread.warp];
  const uint32_t bit = 1u << thread.builtins.lane;
  if (!(mask & bit)) fault(std::string(what) + " with a mask that leaves out the calling lane");
  if (mask & (warp.done | ~warp.lanes)) fault(std::string(what) + " with a mask that names lanes which are gone or never were");
  Meeting* meeting = warp.meeting_of(mask);
  if (!meeting) {
    warp.meetings.push_back({what, mask, 0});
    meeting = &warp.meetings.back();
  } else if (meeting->mask != mask || std::strcmp(meeting->what, what) != 0) {
    fault(std::string(what) + " while other lanes of its mask wait at " + meeting->what + " or with another mask");
  }
  meeting->arrived |= bit;
  warp.slots[thread.builtins.lane] = slot;
  if (meeting->arrived == mask) {
    complete(warp.slots, mask);
    *meeting = warp.meetings.back();
    warp.meetings.pop_back();
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      if (mask >> lane & 1) threads_[thread.warp * kWarpSize + lane].state = State::kReady;
    }
    return;
  }
  thread.state = State::kInWarp;
  thread.fiber.leave();
}

void Runner::fault(const std::string& what) {
  faulted_ = true;
  report_ = where(*builtins) + what;
  current().fiber.leave();
  std::abort();
}

void carry_out(std::vector<PendingCopy>& group) {
  for (const PendingCopy& copy : group) {
    std::memcpy(copy.to, copy.from, copy.source_bytes);
    std::memset(static_cast<char*>(copy.to) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    if (checker().active()) checker().end_copy(copy.to, copy.bytes);
  }
}

}  // namespace

bool run_grid(const Grid& grid, std::string& report) { return runner().run(grid, report); }
void fault(const std::string& what) { runner().fault(what); }
void block_barrier() { runner().block_barrier(); }

void warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const*, uint32_t)) {
  runner().warp_collective(what, mask, slot, complete);
}

void warp_barrier(uint32_t mask) {
  warp_collective("__syncwarp", mask, nullptr, [](void* const*, uint32_t lanes) {
    if (checker().active()) checker().join_lanes(builtins->thread / kWarpSize, lanes);
  });
}

void read_row(void* to, const void* row, size_t bytes, unsigned lane) {
  if (checker().active()) {
    Builtins* running = std::exchange(builtins, &runner().lane(lane).builtins);
    checker().read_by_warp(row, bytes);
    builtins = running;
  }
  std::memcpy(to, row, bytes);
}

void note_atomic(const void* address, size_t bytes) {
  if (checker().active()) checker().access(address, bytes, Access::kAtomic, bytes);
}

Allocation shared_region() {
  static const Allocation region = [] {
    const size_t bytes = kMaxSharedBytes + 2 * kSharedMargin;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return Allocation{reinterpret_cast<uintptr_t>(memory), reinterpret_cast<uintptr_t>(memory) + bytes};
  }();
  return region;
}

std::string text(Dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

std::string hex(const void* address) {
  char buffer[24];
  std::snprintf(buffer, sizeof(buffer), "%p", address);
  return buffer;
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned source_bytes) {
  if (checker().active()) checker().begin_copy(shared, bytes, global, source_bytes);
  runner().current().open_group.push_back({shared, global, bytes, source_bytes});
}

void async_commit() {
  Thread& thread = runner().current();
  thread.groups.push_back(std::move(thread.open_group));
  thread.open_group.clear();
}

void async_wait(unsigned groups_in_flight) {
  Thread& thread = runner().current();
  while (thread.groups.size() > groups_in_flight) {
    carry_out(thread.groups.front());
    thread.groups.pop_front();
  }
}

}  // namespace bao::emulation
