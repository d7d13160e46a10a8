// The stand-in libcudart: access of one device to another's memory. Devices are memory of one process, so it is always possible.
#include <cstring>
#include <set>
#include <utility>

#include "state.h"

using namespace bao::emulation;

namespace {

constexpr int32_t kPeerAccessAlreadyEnabled = 704;

bool is_device(int device) { return device >= 0 && device < runtime().num_devices; }

// Whether `bytes` from an address on are this device's.
bool on_device(const void* address, size_t bytes, int device) {
  const Allocation allocation = find_allocation(address);
  const auto end = reinterpret_cast<uintptr_t>(address) + bytes;
  if (allocation.end == 0 || end > allocation.end) return false;
  return runtime().device_memory.at(allocation.begin).device == device;
}

}  // namespace

EXPORT int32_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = 0;
  if (const int32_t code = injected_failure("cudaDeviceCanAccessPeer")) return remember(code);
  if (!is_device(device) || !is_device(peer)) return remember(kInvalidDevice);
  *can = device != peer;
  return kSuccess;
}

// From the current device to the peer.
EXPORT int32_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  const Lock lock(runtime().mutex);
  if (const int32_t code = enter("cudaDeviceEnablePeerAccess")) return remember(code);
  if (flags != 0) return remember(kInvalidValue);
  if (!is_device(peer) || peer == current_device) return remember(kInvalidDevice);
  static auto* enabled = new std::set<std::pair<int, int>>;
  return enabled->emplace(current_device, peer).second ? kSuccess : remember(kPeerAccessAlreadyEnabled);
}

EXPORT int32_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return kSuccess;
  if (!on_device(to, bytes, to_device) || !on_device(from, bytes, from_device)) return remember(kInvalidValue);
  return enqueue(stream, "cudaMemcpyPeerAsync", [=]() -> int32_t {
    std::memmove(to, from, bytes);
    return kSuccess;
  });
}
