// Executes a grid on the CPU: blocks one after another, the threads of a block as fibers that change places only where a thread
// waits for others. One grid at a time runs in the process (the stand-in libcudart holds its lock while it does).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace bao::emulation {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMaxThreads = 1024;
// What a block may have by opting in, on sm_90.
constexpr size_t kMaxSharedBytes = 227 * 1024;

struct Builtins {
  Dim3 thread_idx, block_idx, block_dim, grid_dim;
  // Number in the block, and in the warp.
  unsigned thread = 0, lane = 0;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
};

// Of the thread that runs. Not thread-local: one grid runs at a time.
extern Builtins* builtins;

struct Grid {
  const char* kernel;
  Dim3 grid, block;
  size_t shared_bytes;
  // The body of one thread.
  std::function<void()> thread_main;
  // Compiled to tell the checker of every access to memory.
  bool checked = false;
  int device = 0;
};

// False where a thread did what a device would fault on; `report` then says kernel, block, thread and what.
bool run_grid(const Grid& grid, std::string& report);

// --- Called by device code ---

// Stops the grid with a report. Does not return.
[[noreturn]] void fault(const std::string& what);

// __syncthreads(). Threads that have returned count as arrived.
void block_barrier();
// __syncwarp().
void warp_barrier(uint32_t mask);

// A step that all lanes of `mask` take together: each lends its slot, the last one to come runs `complete` over the lanes' slots.
void warp_collective(const char* what, uint32_t mask, void* slot, void (*complete)(void* const* slots, uint32_t mask));

// cp.async: copies are carried out no sooner than a wait asks for them, so that a missing wait shows.
void async_copy(void* shared, const void* global, unsigned bytes, unsigned source_bytes);
void async_commit();
void async_wait(unsigned groups_in_flight);

// A row of shared memory for an instruction that gives it to other lanes too, named by this lane of the running warp.
void read_row(void* to, const void* row, size_t bytes, unsigned lane);
// Before an atomic access of a checked grid.
void note_atomic(const void* address, size_t bytes);

struct Allocation {
  uintptr_t begin = 0, end = 0;
};
// Where shared memory is, with what lies around it and belongs to nobody.
Allocation shared_region();
// Where all device memory is.
Allocation device_region();
// The device allocation that an address lies in (or is the end of); empty where there is none.
Allocation find_allocation(const void* address);

std::string text(Dim3 d);
std::string hex(const void* address);

}  // namespace bao::emulation
