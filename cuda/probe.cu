// What the device itself gives, to set kernels beside: the rate at which memory is read; and memory with known contents to measure on.
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

__global__ void __launch_bounds__(kThreads) fill_words_kernel(Global<uint32_t> data, int64_t count, uint32_t value) {
  await_previous_kernel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) data[i] = value;
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

// Enqueues data[i] = value, for `bytes` / 4 words.
BAO_EXPORT int32_t bao_fill_words(const Stream* stream, uint32_t* data, uint32_t value, int64_t bytes) {
  if (!stream) return kStreamClosed;
  if (bytes <= 0 || bytes % 4 != 0) return kBadShape;
  if (!data) return kNullPointer;
  const auto blocks = static_cast<unsigned>(stream->num_multiprocessors) * kBlocksPerMultiprocessor;
  return launched(launch("fill_words", fill_words_kernel, blocks, kThreads, 0, stream->stream, data, bytes / 4, value));
}
