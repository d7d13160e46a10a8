// Host memory for the device's buffers: zero-filled, backed when first touched.
#include <sys/mman.h>

#include <cstdint>
#include <mutex>
#include <new>
#include <unordered_map>

#include "abi.h"
#include "memory.h"

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

std::mutex mutex;

std::unordered_map<void*, size_t>& mappings() {
  // Never destroyed: Workers may still free at process exit.
  static auto* map = new std::unordered_map<void*, size_t>();
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
  void* data = bao::map_memory(size);
  if (!data) return nullptr;
  try {
    const std::lock_guard<std::mutex> lock(mutex);
    mappings().emplace(data, size);
  } catch (const std::bad_alloc&) {
    munmap(data, size);
    return nullptr;
  }
  return data;
}

// kNullPointer for an address that bao_memory_alloc did not return.
BAO_EXPORT int32_t bao_memory_free(void* data) {
  size_t size = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = mappings().find(data);
    if (found == mappings().end()) return bao::kNullPointer;
    size = found->second;
    mappings().erase(found);
  }
  munmap(data, size);
  return bao::kOk;
}
