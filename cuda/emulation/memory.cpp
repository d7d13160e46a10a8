// The stand-in libcudart: memory and copies.
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "state.h"

using namespace bao::emulation;

namespace {

constexpr size_t kAlignment = 256;

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

// The block ends at a page that nobody may touch, as near as its alignment lets it.
void* map_block(size_t bytes, Block& block) {
  constexpr size_t kPage = 4096;
  const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  block.mapped = (room + kPage - 1) / kPage * kPage + kPage;
  block.bytes = bytes;
  block.base = mmap(nullptr, block.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block.base == MAP_FAILED) return nullptr;
  char* guard = static_cast<char*>(block.base) + block.mapped - kPage;
  mprotect(guard, kPage, PROT_NONE);
  return guard - room;
}

}  // namespace

namespace bao::emulation {

Allocation find_allocation(const void* address) {
  uintptr_t begin = 0;
  const Block* block = address ? block_of(runtime().device_memory, address, &begin) : nullptr;
  return block ? Allocation{begin, begin + block->bytes} : Allocation{};
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
  Block block{};
  void* memory = map_block(bytes, block);
  if (!memory) return remember(kMemoryAllocation);
  // What was never written is NaN, as good as any.
  if (bytes <= (size_t{1} << 20)) std::memset(memory, 0xff, bytes);
  block.device = current_device;
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
  const auto found = r.device_memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == r.device_memory.end()) return remember(kInvalidValue);
  const int32_t code = run_device(found->second.device);
  r.used_by(found->second.device) -= found->second.bytes;
  munmap(found->second.base, found->second.mapped);
  r.device_memory.erase(found);
  return remember(code);
}

EXPORT int32_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
  *pointer = nullptr;
  if (const int32_t code = enter_unsafe("cudaHostAlloc")) return remember(code);
  Block block{};
  void* memory = map_block(bytes, block);
  if (!memory) return remember(kMemoryAllocation);
  r.pinned_memory.emplace(reinterpret_cast<uintptr_t>(memory), block);
  *pointer = memory;
  return kSuccess;
}

EXPORT int32_t cudaFreeHost(void* pointer) {
  Runtime& r = runtime();
  const Lock lock(r.mutex);
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

