#include "grid.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "fiber.h"

namespace bao::emulation {

Builtins* builtins = nullptr;

namespace {

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

struct Warp {
  uint32_t lanes = 0;  // that exist
  uint32_t done = 0;   // that have returned
  uint32_t arrived = 0;
  uint32_t mask = 0;
  const char* what = nullptr;
  void* slots[kWarpSize];
};

class Runner {
 public:
  bool run(const Grid& grid, std::string& report);
  void block_barrier();
  void warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const*, uint32_t));
  [[noreturn]] void fault(const std::string& what);
  Thread& current() { return threads_[current_]; }

 private:
  static void entry();
  void begin_block(Dim3 block_idx);
  bool run_block();
  bool run_warp(unsigned warp);
  void release_barrier();
  void report_deadlock();

  const Grid* grid_ = nullptr;
  std::string report_;
  bool faulted_ = false;
  unsigned num_threads_ = 0, num_warps_ = 0, current_ = 0, at_barrier_ = 0, num_done_ = 0;
  std::array<Thread, kMaxThreads> threads_;
  std::array<Warp, kMaxThreads / kWarpSize> warps_;
  alignas(1024) std::array<unsigned char, kMaxSharedBytes> shared_;
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

std::string text(Dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

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
  for (unsigned w = 0; w < num_warps_; w++) warps_[w] = {};
  for (unsigned t = 0; t < num_threads_; t++) {
    Thread& thread = threads_[t];
    const Dim3 b = grid_->block;
    thread.warp = t / kWarpSize;
    thread.builtins = {{t % b.x, t / b.x % b.y, t / (b.x * b.y)}, block_idx, b, grid_->grid, t % kWarpSize, shared_.data(),
                       grid_->shared_bytes};
    thread.state = State::kReady;
    thread.open_group.clear();
    thread.groups.clear();
    thread.fiber.start(entry);
    warps_[thread.warp].lanes |= 1u << thread.builtins.lane;
  }
  // All ones: NaN as float, bfloat16 and float16, and an index that no array has.
  std::memset(shared_.data(), 0xff, grid_->shared_bytes);
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
  for (unsigned t = 0; t < num_threads_; t++) {
    if (threads_[t].state == State::kAtBarrier) threads_[t].state = State::kReady;
  }
}

void Runner::report_deadlock() {
  for (current_ = 0; current_ < num_threads_; current_++) {
    Thread& thread = threads_[current_];
    if (thread.state == State::kDone) continue;
    faulted_ = true;
    const std::string where = thread.state == State::kAtBarrier ? "__syncthreads" : warps_[thread.warp].what;
    report_ = "kernel " + std::string(grid_->kernel) + ", block " + text(thread.builtins.block_idx) + ", thread " +
              text(thread.builtins.thread_idx) + ": waits at " + where + " for threads that never come";
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

bool Runner::run(const Grid& grid, std::string& report) {
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
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.what = what;
  } else if (warp.mask != mask || std::strcmp(warp.what, what) != 0) {
    fault(std::string(what) + " while other lanes of the warp wait at " + warp.what + " or with another mask");
  }
  warp.arrived |= bit;
  warp.slots[thread.builtins.lane] = slot;
  if (warp.arrived == mask) {
    complete(warp.slots, mask);
    warp.arrived = 0;
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      if (mask >> lane & 1) threads_[thread.warp * kWarpSize + lane].state = State::kReady;
    }
    return;
  }
  thread.state = State::kInWarp;
  thread.fiber.leave();
}

void Runner::fault(const std::string& what) {
  Thread& thread = current();
  faulted_ = true;
  report_ = "kernel " + std::string(grid_->kernel) + ", block " + text(thread.builtins.block_idx) + ", thread " +
            text(thread.builtins.thread_idx) + ": " + what;
  thread.fiber.leave();
  std::abort();
}

void carry_out(std::vector<PendingCopy>& group) {
  for (const PendingCopy& copy : group) {
    std::memcpy(copy.to, copy.from, copy.source_bytes);
    std::memset(static_cast<char*>(copy.to) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  }
}

}  // namespace

bool run_grid(const Grid& grid, std::string& report) { return runner().run(grid, report); }
void fault(const std::string& what) { runner().fault(what); }
void block_barrier() { runner().block_barrier(); }

void warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const*, uint32_t)) {
  runner().warp_collective(what, mask, slot, complete);
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned source_bytes) {
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
