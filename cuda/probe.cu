// What the device itself gives, to set kernels beside: the rate at which memory is read; and memory with contents to measure on.
#include "stream.h"

namespace bao {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocksPerMultiprocessor = 8;
// Loads of a thread that are under way together.
constexpr int kLoads = 4;

struct alignas(16) Words {
  uint32_t word[4];
};

__global__ void __launch_bounds__(kThreads) probe_read_kernel(Global<const Words> data, int64_t count, Global<uint32_t> out) {
  await_previous_kernel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  uint32_t sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step * kLoads) {
    Words loaded[kLoads];
    for (int j = 0; j < kLoads; j++) loaded[j] = i + j * step < count ? data[i + j * step] : Words{};
    for (int j = 0; j < kLoads; j++) {
      for (int k = 0; k < 4; k++) sum += loaded[j].word[k];
    }
  }
  // A sum that nobody looks at would not be computed.
  atomicAdd(&out[0], sum);
}

// Two elements of bfloat16 or float16 with random signs and the lower seven bits of their mantissas, and one exponent: a device multiplies equal numbers
// faster than numbers of a model, since fewer of its wires change.
__device__ inline uint32_t noise(uint32_t i) {
  // The end of MurmurHash3 (Appleby), which mixes all bits.
  uint32_t x = i * 0x9e3779b9u;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return ((x ^ x >> 16) & 0x807f807fu) | 0x3c003c00u;
}

__global__ void __launch_bounds__(kThreads) fill_noise_kernel(Global<uint32_t> data, int64_t count) {
  await_previous_kernel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) data[i] = noise(static_cast<uint32_t>(i));
}

}  // namespace
}  // namespace bao

using namespace bao;

// Enqueues a read of `bytes`, a multiple of 16, and adds the sum of their 32-bit words to out[0].
BAO_EXPORT int32_t bao_probe_read(const Stream* stream, const void* data, int64_t bytes, uint32_t* out) {
  if (!stream) return kStreamClosed;
  if (bytes <= 0 || bytes % static_cast<int64_t>(sizeof(Words)) != 0) return kBadShape;
  if (!data || !out) return kNullPointer;
  const auto blocks = static_cast<unsigned>(stream->num_multiprocessors) * kBlocksPerMultiprocessor;
  return launched(launch("probe_read", probe_read_kernel, blocks, kThreads, 0, stream->stream, static_cast<const Words*>(data),
                         bytes / static_cast<int64_t>(sizeof(Words)), out));
}

// Enqueues that `bytes` become elements of bfloat16 or float16 of like size, whose sums of products stay finite; the same each time.
BAO_EXPORT int32_t bao_fill_noise(const Stream* stream, uint32_t* data, int64_t bytes) {
  if (!stream) return kStreamClosed;
  if (bytes <= 0 || bytes % 4 != 0) return kBadShape;
  if (!data) return kNullPointer;
  const auto blocks = static_cast<unsigned>(stream->num_multiprocessors) * kBlocksPerMultiprocessor;
  return launched(launch("fill_noise", fill_noise_kernel, blocks, kThreads, 0, stream->stream, data, bytes / 4));
}
