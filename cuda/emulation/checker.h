// What a checked grid's memory accesses must keep to. Kernels are compiled with -fsanitize=thread, whose calls hooks.cpp takes; so every
// load and store comes here with its address, whatever pointer it goes through.
//
// Each byte of shared memory and of device memory has a cell: who wrote it last and who read it. Two accesses by different threads, one of them
// a write, must have something between them that orders them:
//   - in a block, __syncthreads;
//   - in a warp, __syncwarp with both lanes in its mask. Shuffles, votes, mma and ldmatrix order no memory (CUDA C++ Programming Guide, "Warp
//     Vote Functions" and "Warp Shuffle Functions"), so they don't here;
//   - between blocks of a grid, nothing does. Atomics don't race with atomics.
// That is known from the program's barriers alone, whatever order its threads happen to run in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "grid.h"

namespace bao::emulation {

enum class Access { kRead, kWrite, kAtomic };

// The last accesses to a byte. A moment is the number of an interval between barriers, counted over all blocks and grids; 0 is never.
struct Cell {
  // Who wrote: a thread; a thread, threads of a warp or threads of several warps with atomics; a copy that is not waited for yet.
  enum State : uint8_t { kPlain, kAtomic, kAtomicOfWarp, kAtomicOfWarps, kInFlight };
  bool is_atomic() const { return state == kAtomic || state == kAtomicOfWarp || state == kAtomicOfWarps; }

  uint32_t written = 0, write_clock = 0;
  uint16_t writer = 0;
  State state = kPlain;
  bool read_by_many_warps = false;
  // Readers of the last interval with reads: lanes of one warp, at the lanes' last clock.
  uint32_t read = 0, read_clock = 0, readers = 0;
  uint16_t reading_warp = 0;
  // The last read by a block that came before the last reader's.
  uint32_t read_before = 0;
};

class Checker {
 public:
  Checker();

  // Whether a checked grid runs.
  bool active() const { return grid_ != nullptr; }
  void begin_grid(const Grid& grid);
  void end_grid() { grid_ = nullptr; }
  void begin_block(Dim3 block_idx);
  // All threads of the block have met.
  void barrier() { now_++; }
  // Lanes of a warp have met in an instruction that orders memory.
  void join_lanes(unsigned warp, uint32_t mask);

  // An access by the running thread. Stops the grid where it is wrong.
  void access(const void* address, size_t bytes, Access access, size_t alignment) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at - shared_region_.begin < shared_region_.end - shared_region_.begin) {
      access_shared(at, bytes, access, alignment);
    } else if (at - device_region_.begin < device_region_.end - device_region_.begin) {
      access_device(at, bytes, access, alignment);
    }
  }
  // A read whose bytes go to other lanes than the one that names the address.
  void read_by_warp(const void* address, size_t bytes);
  // cp.async: from the start until the wait, shared memory belongs to the copy.
  void begin_copy(const void* shared, size_t bytes, const void* global, size_t source_bytes);
  void end_copy(const void* shared, size_t bytes);

 private:
  void access_shared(uintptr_t at, size_t bytes, Access access, size_t alignment);
  void access_device(uintptr_t at, size_t bytes, Access access, size_t alignment);
  Cell* shared_cells(uintptr_t at, size_t bytes);
  void check_alignment(uintptr_t at, size_t bytes, size_t alignment, const char* memory) const;
  void visit(Cell* cells, uintptr_t at, size_t bytes, Access access, bool shared);
  void check_write_order(const Cell& cell, uintptr_t at, Access access, bool shared) const;
  void check_read_order(const Cell& cell, uintptr_t at, bool shared) const;
  // The running thread, as cells know it.
  struct Self {
    uint16_t thread, warp;
    uint32_t clock, bit;
  };
  Self self() const;
  bool settled(const Cell& cell, bool shared) const;
  void note_read(Cell& cell, const Self& self) const;
  void note_write(Cell& cell, Cell::State state, const Self& self) const;
  Cell::State state_after(const Cell& cell, Access access) const;
  bool ordered(unsigned thread, uint32_t clock) const;
  bool after_last_write(const Cell& cell) const;
  bool seen_by(const Cell& cell, unsigned lane) const;
  bool of_other_block(uint32_t moment) const { return moment >= grid_begin_ && moment < block_begin_; }
  [[noreturn]] void report_race(const char* now, const char* before, const std::string& who, uintptr_t at, bool shared) const;
  std::string block_at(uint32_t moment) const;
  std::string thread_text(unsigned thread) const;
  std::string place(uintptr_t at, bool shared) const;
  static std::string neighbour(uintptr_t at);

  const Grid* grid_ = nullptr;
  Allocation shared_region_, device_region_;
  // The present interval, and the first ones of the block and of the grid.
  uint32_t now_ = 0, block_begin_ = 0, grid_begin_ = 0;
  std::vector<std::pair<uint32_t, Dim3>> blocks_;
  // Vector clocks: how far in the life of each lane of its warp a lane has seen.
  using LaneClocks = std::array<uint32_t, kWarpSize>;
  std::array<std::array<LaneClocks, kWarpSize>, kMaxThreads / kWarpSize> clocks_;
  std::vector<Cell> shared_;
};

Checker& checker();

}  // namespace bao::emulation
