#include "checker.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "state.h"

namespace bao::emulation {

namespace {

const char* verb(Access access) {
  switch (access) {
    case Access::kRead:
      return "read";
    case Access::kWrite:
      return "write";
    default:
      return "atomic access";
  }
}

// Farther away an allocation has nothing to do with an access.
constexpr uintptr_t kNear = 4096;

unsigned this_warp() { return builtins->thread / kWarpSize; }

}  // namespace

Checker& checker() {
  static auto* instance = new Checker();
  return *instance;
}

Checker::Checker() : shared_region_(shared_region()), device_region_(device_region()) {
  for (auto& warp : clocks_) {
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      warp[lane].fill(0);
      warp[lane][lane] = 1;
    }
  }
}

void Checker::begin_grid(const Grid& grid) {
  if (shared_.empty()) shared_.resize(kMaxSharedBytes);
  grid_ = &grid;
  grid_begin_ = now_ + 1;
  blocks_.clear();
}

void Checker::begin_block(Dim3 block_idx) {
  block_begin_ = ++now_;
  blocks_.emplace_back(now_, block_idx);
}

void Checker::join_lanes(unsigned warp, uint32_t mask) {
  auto& clocks = clocks_[warp];
  LaneClocks joined{};
  for (unsigned lane = 0; lane < kWarpSize; lane++) {
    if (!(mask >> lane & 1)) continue;
    for (unsigned i = 0; i < kWarpSize; i++) joined[i] = std::max(joined[i], clocks[lane][i]);
  }
  for (unsigned lane = 0; lane < kWarpSize; lane++) {
    if (!(mask >> lane & 1)) continue;
    clocks[lane] = joined;
    clocks[lane][lane]++;
  }
}

// --- Places ---

std::string Checker::thread_text(unsigned thread) const {
  const Dim3 b = grid_->block;
  return "thread " + text({thread % b.x, thread / b.x % b.y, thread / (b.x * b.y)});
}

std::string Checker::block_at(uint32_t moment) const {
  const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), moment,
                                      [](uint32_t value, const auto& block) { return value < block.first; });
  return "block " + text((after - 1)->second);
}

std::string Checker::place(uintptr_t at, bool shared) const {
  if (shared) return "byte " + std::to_string(at - reinterpret_cast<uintptr_t>(builtins->shared)) + " of shared memory";
  const Allocation allocation = find_allocation(reinterpret_cast<void*>(at));
  return "byte " + std::to_string(at - allocation.begin) + " of an allocation of " +
         std::to_string(allocation.end - allocation.begin) + " bytes";
}

// What lies nearest to an address that is in no allocation, or in one but for its end.
std::string Checker::neighbour(uintptr_t at) {
  const Blocks& blocks = runtime().device_memory;
  const auto after = blocks.upper_bound(at);
  const auto allocation = [](const Block& block) { return "an allocation of " + std::to_string(block.bytes) + " bytes"; };
  const uintptr_t gap = after == blocks.end() ? ~uintptr_t{0} : after->first - at;
  if (after != blocks.begin()) {
    const Block& before = std::prev(after)->second;
    if (at - before.begin < before.bytes) return "across the end of " + allocation(before);
    const uintptr_t past = at - before.begin - before.bytes;
    if (past == 0) return "at the end of " + allocation(before);
    if (past < kNear && past < gap) return std::to_string(past) + " bytes past the end of " + allocation(before);
  }
  if (gap < kNear) return std::to_string(gap) + " bytes before " + allocation(after->second);
  return "where nothing is allocated";
}

void Checker::check_alignment(uintptr_t at, size_t bytes, size_t alignment, const char* memory) const {
  if (at % alignment == 0) return;
  fault("misaligned access of " + std::to_string(bytes) + " bytes at " + hex(reinterpret_cast<void*>(at)) + " in " + memory);
}

Cell* Checker::shared_cells(uintptr_t at, size_t bytes) {
  const auto offset = static_cast<int64_t>(at - reinterpret_cast<uintptr_t>(builtins->shared));
  if (offset < 0 || static_cast<size_t>(offset) + bytes > builtins->shared_bytes) {
    fault("access of " + std::to_string(bytes) + " bytes at byte " + std::to_string(offset) + " of " +
          std::to_string(builtins->shared_bytes) + " of shared memory");
  }
  return shared_.data() + offset;
}

void Checker::access_shared(uintptr_t at, size_t bytes, Access access, size_t alignment) {
  Cell* cells = shared_cells(at, bytes);
  check_alignment(at, bytes, alignment, "shared memory");
  visit(cells, at, bytes, access, true);
}

void Checker::access_device(uintptr_t at, size_t bytes, Access access, size_t alignment) {
  Block* block = block_at_address(reinterpret_cast<void*>(at));
  if (!block || at + bytes > block->begin + block->bytes) {
    fault("access of " + std::to_string(bytes) + " bytes at " + hex(reinterpret_cast<void*>(at)) + ", " + neighbour(at));
  }
  if (block->device != grid_->device) {
    fault("access of memory of device " + std::to_string(block->device) + " on device " + std::to_string(grid_->device));
  }
  check_alignment(at, bytes, alignment, "device memory");
  visit(cells_of(*block) + (at - block->begin), at, bytes, access, false);
}

// --- Order ---

// Whether what another thread of the block did in this interval, at that moment of its lane's clock, comes before what this one does now.
bool Checker::ordered(unsigned thread, uint32_t clock) const {
  if (thread == builtins->thread) return true;
  const unsigned warp = this_warp();
  return thread / kWarpSize == warp && clocks_[warp][builtins->lane][thread % kWarpSize] >= clock;
}

// The same for all who wrote what the cell holds.
bool Checker::after_last_write(const Cell& cell) const {
  if (cell.state == Cell::kAtomicOfWarps || !ordered(cell.writer, cell.write_clock)) return false;
  // This thread may be the last of those that wrote: then it must know of its neighbours too.
  return cell.state != Cell::kAtomicOfWarp || seen_by(cell, builtins->lane);
}

// Whether a lane of the writer's warp has met its neighbours since.
bool Checker::seen_by(const Cell& cell, unsigned lane) const {
  return clocks_[cell.writer / kWarpSize][lane][(lane + 1) % kWarpSize] >= cell.write_clock;
}

void Checker::report_race(const char* now, const char* before, const std::string& who, uintptr_t at, bool shared) const {
  fault("race: " + std::string(now) + " of " + place(at, shared) + ", which " + who + " " + before + " with nothing in between that orders them");
}

// Against the last write.
void Checker::check_write_order(const Cell& cell, uintptr_t at, Access access, bool shared) const {
  if (cell.written < (shared ? block_begin_ : grid_begin_)) {
    if (shared && access != Access::kWrite) fault(std::string(verb(access)) + " of " + place(at, true) + ", which nobody wrote");
    return;
  }
  if (cell.state == Cell::kInFlight && cell.written >= block_begin_) {
    fault(std::string(verb(access)) + " of " + place(at, shared) + ", into which " + thread_text(cell.writer) +
          " copies with cp.async and has not waited");
  }
  if (access == Access::kAtomic && cell.is_atomic()) return;
  const char* before = cell.is_atomic() ? "accessed atomically" : "wrote";
  if (of_other_block(cell.written)) report_race(verb(access), before, block_at(cell.written), at, shared);
  if (cell.written == now_ && !after_last_write(cell)) {
    const bool several = cell.state == Cell::kAtomicOfWarp || cell.state == Cell::kAtomicOfWarps;
    report_race(verb(access), before, several ? "several threads" : thread_text(cell.writer), at, shared);
  }
}

// A write against the reads before it.
void Checker::check_read_order(const Cell& cell, uintptr_t at, bool shared) const {
  if (!shared) {
    const uint32_t other = of_other_block(cell.read) ? cell.read : cell.read_before;
    if (of_other_block(other)) report_race("write", "read", block_at(other), at, false);
  }
  if (cell.read != now_) return;
  const unsigned warp = this_warp();
  if (cell.read_by_many_warps) report_race("write", "read", "another warp", at, shared);
  for (uint32_t left = cell.readers; left != 0; left &= left - 1) {
    const unsigned reader = cell.reading_warp * kWarpSize + static_cast<unsigned>(std::countr_zero(left));
    if (cell.reading_warp != warp || !ordered(reader, cell.read_clock)) report_race("write", "read", thread_text(reader), at, shared);
  }
}

inline Checker::Self Checker::self() const {
  const unsigned warp = this_warp(), lane = builtins->lane;
  return {static_cast<uint16_t>(builtins->thread), static_cast<uint16_t>(warp), clocks_[warp][lane][lane], 1u << lane};
}

inline void Checker::note_read(Cell& cell, const Self& self) const {
  if (cell.read != now_) {
    if (cell.read != 0 && cell.read < block_begin_) cell.read_before = cell.read;
    cell.read = now_;
    cell.read_by_many_warps = false;
  } else if (cell.reading_warp != self.warp) {
    cell.read_by_many_warps = true;
  } else if (cell.read_clock == self.clock) {
    cell.readers |= self.bit;
    return;
  } else if (cell.read_clock > self.clock) {
    return;
  }
  cell.reading_warp = self.warp;
  cell.read_clock = self.clock;
  cell.readers = self.bit;
}

Cell::State Checker::state_after(const Cell& cell, Access access) const {
  if (access != Access::kAtomic) return Cell::kPlain;
  if (cell.written != now_ || !cell.is_atomic()) return Cell::kAtomic;
  if (cell.writer == builtins->thread) return cell.state;
  return cell.writer / kWarpSize == this_warp() && cell.state != Cell::kAtomicOfWarps ? Cell::kAtomicOfWarp : Cell::kAtomicOfWarps;
}

inline void Checker::note_write(Cell& cell, Cell::State state, const Self& self) const {
  cell.written = now_;
  cell.write_clock = self.clock;
  cell.writer = self.thread;
  cell.state = state;
}

// What nearly every byte is: written in an interval of this block before this one, or before the grid, and in nobody's way.
inline bool Checker::settled(const Cell& cell, bool shared) const {
  if (cell.written >= now_ || cell.state == Cell::kInFlight) return false;
  return cell.written >= block_begin_ || (!shared && cell.written < grid_begin_);
}

void Checker::visit(Cell* cells, uintptr_t at, size_t bytes, Access access, bool shared) {
  const Self me = self();
  for (size_t i = 0; i < bytes; i++) {
    Cell& cell = cells[i];
    if (!settled(cell, shared)) check_write_order(cell, at + i, access, shared);
    if (access == Access::kRead) {
      note_read(cell, me);
    } else {
      check_read_order(cell, at + i, shared);
      note_write(cell, state_after(cell, access), me);
    }
  }
}

// --- Instructions that access memory for others, or later ---

void Checker::read_by_warp(const void* address, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  Cell* cells = shared_cells(at, bytes);
  const Self me = self();
  for (size_t i = 0; i < bytes; i++) {
    Cell& cell = cells[i];
    if (!settled(cell, true)) check_write_order(cell, at + i, Access::kRead, true);
    // The lane that wrote has the bytes; its neighbours get them too.
    if (cell.written == now_ && !seen_by(cell, cell.writer % kWarpSize)) {
      report_race("read", "wrote", thread_text(cell.writer), at + i, true);
    }
    note_read(cell, me);
    if (cell.reading_warp == me.warp) cell.readers = ~0u;
  }
}

void Checker::begin_copy(const void* shared, size_t bytes, const void* global, size_t source_bytes) {
  if (source_bytes > 0) access(global, source_bytes, Access::kRead, source_bytes);
  const auto at = reinterpret_cast<uintptr_t>(shared);
  access_shared(at, bytes, Access::kWrite, bytes);
  Cell* cells = shared_cells(at, bytes);
  for (size_t i = 0; i < bytes; i++) cells[i].state = Cell::kInFlight;
}

void Checker::end_copy(const void* shared, size_t bytes) {
  Cell* cells = shared_cells(reinterpret_cast<uintptr_t>(shared), bytes);
  const Self me = self();
  for (size_t i = 0; i < bytes; i++) note_write(cells[i], Cell::kPlain, me);
}

}  // namespace bao::emulation
