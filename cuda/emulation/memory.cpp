// The stand-in libcudart: memory and copies.
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "checker.h"
#include "state.h"

using namespace bao::emulation;

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kPage = 4096;

const Block* block_of(const Blocks& blocks, const void* address, uintptr_t* begin = nullptr) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return nullptr;
  --next;
  if (begin) *begin = next->first;
  return at <= next->first + next->second.bytes ? &next->second : nullptr;
}

bool inside(const Blocks& blocks, const void* address, size_t bytes) {
  uintptr_t begin = 0;
  const Block* block = block_of(blocks, address, &begin);
  return block && reinterpret_cast<uintptr_t>(address) + bytes <= begin + block->bytes;
}

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

// Lays a block into `mapped` bytes at `base` that may not be touched yet, so that it ends at a page which stays so, as near as its alignment lets it.
void* lay_block(void* base, size_t bytes, size_t mapped, Block& block) {
  const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (mprotect(base, mapped - kPage, PROT_READ | PROT_WRITE) != 0) return nullptr;
  char* begin = static_cast<char*>(base) + mapped - kPage - room;
  block = {reinterpret_cast<uintptr_t>(begin), bytes, mapped, base, current_device, nullptr};
  return begin;
}

size_t mapped_bytes(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage + kPage; }

// Addresses for device memory. They rise, and begin again only at the end: memory that was freed is nobody's for long.
class AddressSpace {
 public:
  AddressSpace() {
    for (size_t bytes = size_t{1} << 40; bytes >= size_t{1} << 33; bytes /= 2) {
      void* base = mmap(nullptr, bytes, PROT_NONE, kPrivate, -1, 0);
      if (base == MAP_FAILED) continue;
      region_ = {reinterpret_cast<uintptr_t>(base), reinterpret_cast<uintptr_t>(base) + bytes};
      next_ = region_.begin;
      return;
    }
  }

  Allocation region() const { return region_; }

  // Null where there is no room.
  void* take(size_t bytes, const Blocks& blocks) {
    for (int round = 0; round < 2; round++) {
      for (auto block = blocks.lower_bound(next_); region_.end - next_ >= bytes; ++block) {
        const uintptr_t end = block == blocks.end() ? region_.end : reinterpret_cast<uintptr_t>(block->second.base);
        if (end - next_ >= bytes) return reinterpret_cast<void*>(std::exchange(next_, next_ + bytes));
        next_ = reinterpret_cast<uintptr_t>(block->second.base) + block->second.mapped;
      }
      next_ = region_.begin;
    }
    return nullptr;
  }

 private:
  Allocation region_;
  uintptr_t next_ = 0;
};

AddressSpace& address_space() {
  static auto* instance = new AddressSpace();
  return *instance;
}

// What the checker found last, by pages: no two allocations share one.
struct FoundBlock {
  uintptr_t page = 0;
  Block* block = nullptr;
};
std::array<FoundBlock, 64> found_blocks;

}  // namespace

namespace bao::emulation {

Allocation find_allocation(const void* address) {
  uintptr_t begin = 0;
  const Block* block = address ? block_of(runtime().device_memory, address, &begin) : nullptr;
  return block ? Allocation{begin, begin + block->bytes} : Allocation{};
}

Allocation device_region() { return address_space().region(); }

Block* block_at_address(const void* address) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address), page = at / kPage;
  FoundBlock& found = found_blocks[page % found_blocks.size()];
  if (found.page != page) {
    Blocks& blocks = runtime().device_memory;
    auto next = blocks.upper_bound(at);
    if (next == blocks.begin()) return nullptr;
    found = {page, &(--next)->second};
  }
  Block* block = found.block;
  return at >= block->begin && at < block->begin + block->bytes ? block : nullptr;
}

Cell* cells_of(Block& block) {
  if (block.cells) return block.cells;
  void* cells = mmap(nullptr, block.bytes * sizeof(Cell), PROT_READ | PROT_WRITE, kPrivate, -1, 0);
  if (cells == MAP_FAILED) throw std::bad_alloc();
  // Pages of zeros: cells that were never accessed.
  block.cells = static_cast<Cell*>(cells);
  return block.cells;
}

}  // namespace bao::emulation

EXPORT int32_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (const int32_t code = enter("cudaMemGetInfo")) return remember(code);
  *total_bytes = r.memory_bytes;
  *free_bytes = r.memory_bytes - r.used_by(current_device);
  return kSuccess;
}

EXPORT int32_t cudaMalloc(void** pointer, size_t bytes) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *pointer = nullptr;
  if (const int32_t code = enter_unsafe("cudaMalloc")) return remember(code);
  if (bytes == 0) return kSuccess;
  size_t& used = r.used_by(current_device);
  if (bytes > r.memory_bytes - used) return remember(kMemoryAllocation);
  const size_t mapped = mapped_bytes(bytes);
  void* base = address_space().take(mapped, r.device_memory);
  Block block;
  void* memory = base ? lay_block(base, bytes, mapped, block) : nullptr;
  if (!memory) return remember(kMemoryAllocation);
  // What was never written is NaN, as good as any.
  if (bytes <= (size_t{1} << 20)) std::memset(memory, 0xff, bytes);
  used += bytes;
  r.device_memory.emplace(reinterpret_cast<uintptr_t>(memory), block);
  *pointer = memory;
  return kSuccess;
}

EXPORT int32_t cudaFree(void* pointer) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (!pointer) return kSuccess;
  if (guarded_capture) return remember(enter_unsafe("cudaFree"));
  if (const int32_t code = injected_failure("cudaFree")) return remember(code);
  const auto found = r.device_memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == r.device_memory.end()) return remember(kInvalidValue);
  const int32_t code = run_device(found->second.device);
  const Block& block = found->second;
  r.used_by(block.device) -= block.bytes;
  // The pages are given back, the addresses kept.
  mmap(block.base, block.mapped, PROT_NONE, kPrivate | MAP_FIXED, -1, 0);
  if (block.cells) munmap(block.cells, block.bytes * sizeof(Cell));
  found_blocks.fill({});
  r.device_memory.erase(found);
  return remember(code);
}

EXPORT int32_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *pointer = nullptr;
  if (const int32_t code = enter_unsafe("cudaHostAlloc")) return remember(code);
  const size_t mapped = mapped_bytes(bytes);
  void* base = mmap(nullptr, mapped, PROT_NONE, kPrivate, -1, 0);
  Block block;
  void* memory = base != MAP_FAILED ? lay_block(base, bytes, mapped, block) : nullptr;
  if (!memory) return remember(kMemoryAllocation);
  r.pinned_memory.emplace(reinterpret_cast<uintptr_t>(memory), block);
  *pointer = memory;
  return kSuccess;
}

EXPORT int32_t cudaFreeHost(void* pointer) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  if (const int32_t code = injected_failure("cudaFreeHost")) return remember(code);
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
  const bool pageable = kind != 3 && !inside(r.pinned_memory, kind == 1 ? from : to, bytes);
  if (pageable && known(stream) && stream->capture) {
    stream->broken = true;
    return remember(kStreamCaptureUnsupported);
  }
  if (kind == 1 && pageable) {
    const auto* begin = static_cast<const unsigned char*>(from);
    return enqueue(stream, "cudaMemcpyAsync",
                                   [to, copy = std::vector<unsigned char>(begin, begin + bytes)]() -> int32_t {
                                     std::memcpy(to, copy.data(), copy.size());
                                     return kSuccess;
                                   });
  }
  const int32_t code = enqueue(stream, "cudaMemcpyAsync", [=]() -> int32_t {
    std::memmove(to, from, bytes);
    return kSuccess;
  });
  if (code != kSuccess || !pageable) return code;
  return remember(run_until(*stream, stream->enqueued));
}

EXPORT int32_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return kSuccess;
  if (!inside(runtime().device_memory, to, bytes)) return remember(kInvalidValue);
  return enqueue(stream, "cudaMemsetAsync", [=]() -> int32_t {
    std::memset(to, value, bytes);
    return kSuccess;
  });
}

