// Host memory for the device's buffers: zero-filled, backed when first touched.
#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

#include "abi.h"
#include "memory.h"

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

// Buffers of that many bytes or more, but too few to have huge pages of their own, lie one behind the other in regions that have them. (A
// weight of 4 bits is some megabytes: on small pages it is read at nine tenths of the rate.)
constexpr size_t kSharedBytes = size_t{64} << 10;
constexpr size_t kRegionBytes = 16 * kHugePage;

struct Region {
  char* data = nullptr;
  // Bytes that are given out, from the start; buffers among them that are not freed yet.
  size_t used = 0;
  int64_t live = 0;
};

struct Allocation {
  size_t bytes;
  // nullptr: a mapping of its own.
  Region* region;
};

std::mutex mutex;
// The one that has room, or nullptr.
Region* open_region = nullptr;

std::unordered_map<void*, Allocation>& allocations() {
  // Never destroyed: Workers may still free at process exit.
  static auto* map = new std::unordered_map<void*, Allocation>();
  return *map;
}

void* map_zeroed(size_t bytes) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#if defined(MAP_NORESERVE)
  flags |= MAP_NORESERVE;
#endif
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

// Aligned to a huge page, with the advice to use them: weights and KV blocks are read with strides that would otherwise miss
// the TLB.
void* map_huge(size_t bytes) {
  char* data = static_cast<char*>(map_zeroed(bytes + kHugePage));
  if (!data) return nullptr;
  const size_t skip = (kHugePage - reinterpret_cast<uintptr_t>(data) % kHugePage) % kHugePage;
  if (skip > 0) munmap(data, skip);
  if (skip < kHugePage) munmap(data + skip + bytes, kHugePage - skip);
#if defined(MADV_HUGEPAGE)
  madvise(data + skip, bytes, MADV_HUGEPAGE);
#endif
  return data + skip;
}

// Unmaps a region that nobody uses and that gets no more buffers.
void drop_if_unused(Region* region) {
  if (region->live > 0 || region == open_region) return;
  munmap(region->data, kRegionBytes);
  delete region;
}

// {nullptr, …} where the memory can't be had.
std::pair<void*, Region*> take_from_region(size_t bytes) {
  if (!open_region || open_region->used + bytes > kRegionBytes) {
    auto region = std::make_unique<Region>();
    region->data = static_cast<char*>(map_huge(kRegionBytes));
    if (!region->data) return {nullptr, nullptr};
    Region* full = open_region;
    open_region = region.release();
    if (full) drop_if_unused(full);
  }
  void* data = open_region->data + open_region->used;
  open_region->used += bytes;
  open_region->live++;
  return {data, open_region};
}

// Its place is not used again: it would have to be cleared. So the pages go back at once, the addresses with the region.
void give_back(void* data, const Allocation& allocation) {
  if (!allocation.region) {
    munmap(data, allocation.bytes);
    return;
  }
  madvise(data, allocation.bytes, MADV_DONTNEED);
  allocation.region->live--;
  drop_if_unused(allocation.region);
}

}  // namespace

namespace bao {

void* map_memory(size_t bytes) { return bytes >= 2 * kHugePage ? map_huge(bytes) : map_zeroed(bytes); }

void unmap_memory(void* data, size_t bytes) {
  if (data) munmap(data, bytes);
}

}  // namespace bao

// nullptr where the memory can't be had. The memory goes one cache line past `bytes`, so that a vector load at its end is safe.
BAO_EXPORT void* bao_memory_alloc(int64_t bytes) {
  if (bytes <= 0 || bytes > (int64_t{1} << 46)) return nullptr;
  const size_t size = static_cast<size_t>(bao::round_up(bytes + 64, kPage));
  const std::lock_guard<std::mutex> lock(mutex);
  try {
    const bool shared = size >= kSharedBytes && size < 2 * kHugePage;
    const auto [data, region] = shared ? take_from_region(size) : std::pair<void*, Region*>{bao::map_memory(size), nullptr};
    if (!data) return nullptr;
    try {
      allocations().emplace(data, Allocation{size, region});
    } catch (const std::bad_alloc&) {
      give_back(data, {size, region});
      return nullptr;
    }
    return data;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// kNullPointer for an address that bao_memory_alloc did not return.
BAO_EXPORT int32_t bao_memory_free(void* data) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = allocations().find(data);
  if (found == allocations().end()) return bao::kNullPointer;
  const Allocation allocation = found->second;
  allocations().erase(found);
  give_back(data, allocation);
  return bao::kOk;
}
