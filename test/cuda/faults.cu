// Kernels with one fault each, through plain pointers, for the checked emulation to find; `mended` they are right, and it must say nothing.
// Blocks have 64 threads, that is two warps; `data` and `out` have 64 elements and shared memory has room for as many, in 256 bytes.
#include <cstring>

#include "../../cpu/abi.h"
#include "../../cuda/ptx.cuh"

namespace bao {
namespace {

struct Arguments {
  const float* data;
  float* out;
  bool mended;
};

struct alignas(16) FourFloats {
  float element[4];
};

struct Place {
  int thread, warp, lane, block;
};

__device__ inline Place place() {
  const int thread = static_cast<int>(threadIdx.x);
  return {thread, thread / 32, thread % 32, static_cast<int>(blockIdx.x)};
}

// So that what is read too early is a race, and not the first value.
__device__ inline float* filled_shared() {
  float* shared = shared_memory<float>();
  shared[threadIdx.x] = 0.0f;
  __syncthreads();
  return shared;
}

// --- Bounds and alignment ---

__global__ void read_past_end(Arguments a) {
  const Place p = place();
  if (p.block == 0) a.out[p.thread] = a.data[p.thread + (a.mended ? 0 : 1)];
}

__global__ void write_past_end(Arguments a) {
  const Place p = place();
  if (p.block == 0) a.out[p.thread + (a.mended ? 0 : 1)] = 1.0f;
}

__global__ void read_before_begin(Arguments a) {
  const Place p = place();
  if (p.block == 0) a.out[p.thread] = a.data[p.thread - (a.mended ? 0 : 1)];
}

__global__ void read_past_shared(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  shared[p.thread] = 0.0f;
  __syncthreads();
  if (p.block == 0) a.out[p.thread] = shared[p.thread + (a.mended ? 0 : 1)];
}

__global__ void write_past_shared(Arguments a) { shared_memory<float>()[place().thread + (a.mended ? 0 : 1)] = 0.0f; }

__global__ void write_before_shared(Arguments a) { shared_memory<float>()[place().thread - (a.mended ? 0 : 1)] = 0.0f; }

__global__ void misaligned_vector(Arguments a) {
  const Place p = place();
  if (p.thread < 15 && p.block == 0) {
    const float* from = a.data + 4 * p.thread + (a.mended ? 0 : 2);
    *reinterpret_cast<FourFloats*>(a.out + 4 * p.thread) = *reinterpret_cast<const FourFloats*>(from);
  }
}

__global__ void misaligned_shared_vector(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  if (p.thread < 15) *reinterpret_cast<FourFloats*>(shared + 4 * p.thread + (a.mended ? 0 : 1)) = FourFloats{};
}

__global__ void library_copy_past_end(Arguments a) {
  const Place p = place();
  if (p.thread == 0 && p.block == 0) memcpy(a.out, a.data, (32 * gridDim.x + (a.mended ? 0 : 1)) * sizeof(float));
}

// --- Shared memory that nobody wrote ---

__global__ void uninitialised_shared(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  if (a.mended || p.thread != 17) shared[p.thread] = 1.0f;
  __syncthreads();
  if (p.block == 0) a.out[p.thread] = shared[63 - p.thread];
}

// --- Races in a block ---

__global__ void missing_syncthreads(Arguments a) {
  const Place p = place();
  float* shared = filled_shared();
  shared[p.thread] = 1.0f;
  if (a.mended) __syncthreads();
  const float other = shared[p.thread ^ 32];
  if (p.block == 0) a.out[p.thread] = other;
}

__global__ void missing_syncthreads_before_reuse(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  shared[p.thread] = 1.0f;
  __syncthreads();
  const float other = shared[p.thread ^ 32];
  if (a.mended) __syncthreads();
  shared[p.thread] = other + 1.0f;
}

__global__ void missing_syncwarp(Arguments a) {
  const Place p = place();
  float* shared = filled_shared();
  shared[p.thread] = 1.0f;
  if (a.mended) __syncwarp();
  const float other = shared[p.thread ^ 1];
  if (p.block == 0) a.out[p.thread] = other;
}

__global__ void missing_syncwarp_before_reuse(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  shared[p.thread] = 1.0f;
  __syncwarp();
  const float other = shared[p.thread ^ 1];
  if (a.mended) __syncwarp();
  shared[p.thread] = other + 1.0f;
}

// A shuffle brings lanes together, but not their memory.
__global__ void shuffle_for_syncwarp(Arguments a) {
  const Place p = place();
  float* shared = filled_shared();
  shared[p.thread] = 1.0f;
  const int lane = __shfl_xor_sync(kFullWarp, p.lane, 1);
  if (a.mended) __syncwarp();
  const float other = shared[32 * p.warp + lane];
  if (p.block == 0) a.out[p.thread] = other;
}

// The second half of the warp is not in the first half's mask.
__global__ void syncwarp_of_half(Arguments a) {
  const Place p = place();
  float* shared = filled_shared();
  shared[p.thread] = 1.0f;
  if (a.mended) {
    __syncwarp();
  } else {
    __syncwarp(p.lane < 16 ? 0x0000ffffu : 0xffff0000u);
  }
  const float other = shared[p.thread ^ (p.thread < 16 ? 16 : 1)];
  if (p.block == 0) a.out[p.thread] = other;
}

__global__ void syncwarp_between_warps(Arguments a) {
  const Place p = place();
  float* shared = filled_shared();
  shared[p.thread] = 1.0f;
  if (a.mended) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  const float other = shared[63 - p.thread];
  if (p.block == 0) a.out[p.thread] = other;
}

__global__ void plain_read_of_atomic(Arguments a) {
  const Place p = place();
  int* counter = shared_memory<int>();
  if (p.thread == 0) *counter = 0;
  __syncthreads();
  atomicAdd(counter, 1);
  if (a.mended) __syncthreads();
  if (p.thread == 63 && p.block == 0) a.out[0] = static_cast<float>(*counter);
}

__global__ void ldmatrix_before_syncwarp(Arguments a) {
  const Place p = place();
  uint32_t* shared = shared_memory<uint32_t>();
  if (p.warp == 0) {
    for (int i = 0; i < 2; i++) shared[2 * p.lane + i] = 0;
    if (a.mended) __syncwarp();
    uint32_t r[2];
    ldmatrix_x2_trans(r, shared + p.lane % 16 * 4);
  }
}

__global__ void missing_syncthreads_in_device_memory(Arguments a) {
  const Place p = place();
  if (p.block != 0) return;
  a.out[p.thread] = 1.0f;
  if (a.mended) __syncthreads();
  const float other = a.out[p.thread ^ 32];
  __syncthreads();
  a.out[p.thread] = other;
}

// --- cp.async ---

__global__ void read_before_wait(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  if (p.thread < 16) cp_async_16(shared + 4 * p.thread, a.data + 4 * p.thread, true);
  cp_async_commit();
  if (a.mended) cp_async_wait<0>();
  const float mine = p.thread < 16 ? shared[4 * p.thread] : 0.0f;
  if (p.block == 0) a.out[p.thread] = mine;
  cp_async_wait<0>();
}

// One group may stay in flight, and it is the second one.
__global__ void wait_for_too_few(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  for (int group = 0; group < 2; group++) {
    const int i = p.thread % 8 + 8 * group;
    if (p.thread < 8) cp_async_16(shared + 4 * i, a.data + 4 * i, true);
    cp_async_commit();
  }
  cp_async_wait<1>();
  if (p.thread < 8 && p.block == 0) a.out[p.thread] = shared[4 * p.thread + (a.mended ? 0 : 32)];
  cp_async_wait<0>();
}

// A wait is for the thread's own copies.
__global__ void wait_without_syncthreads(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  if (p.thread < 16) cp_async_16(shared + 4 * p.thread, a.data + 4 * p.thread, true);
  cp_async_commit();
  cp_async_wait<0>();
  if (a.mended) __syncthreads();
  const float value = shared[p.thread];
  if (p.block == 0) a.out[p.thread] = value;
}

__global__ void copy_into_what_is_read(Arguments a) {
  const Place p = place();
  float* shared = shared_memory<float>();
  shared[p.thread] = 1.0f;
  __syncthreads();
  const float value = shared[63 - p.thread];
  if (a.mended) __syncthreads();
  if (p.thread < 16) cp_async_16(shared + 4 * p.thread, a.data + 4 * p.thread, true);
  cp_async_commit();
  cp_async_wait<0>();
  if (p.block == 0) a.out[p.thread] = value;
}

__global__ void copy_past_end(Arguments a) {
  const Place p = place();
  const int i = p.thread + (a.mended ? 0 : 1);
  if (p.thread < 16) cp_async_16(shared_memory<float>() + 4 * p.thread, a.data + 4 * i, true);
  cp_async_commit();
  cp_async_wait<0>();
}

// --- Between blocks ---

__global__ void blocks_write_the_same(Arguments a) {
  const Place p = place();
  if (p.thread == 0) a.out[a.mended ? p.block : 0] = 1.0f;
}

__global__ void block_reads_what_another_writes(Arguments a) {
  const Place p = place();
  if (p.thread == 0 && p.block == 0) a.out[0] = 1.0f;
  if (p.thread == 0 && p.block == 1) a.out[1] = a.out[a.mended ? 2 : 0];
}

__global__ void block_writes_what_another_reads(Arguments a) {
  const Place p = place();
  if (p.thread == 0 && p.block == 0) a.out[1] = a.out[0];
  if (p.thread == 0 && p.block == 1) a.out[a.mended ? 2 : 0] = a.out[a.mended ? 2 : 0] + 1.0f;
}

struct Fault {
  const char* name;
  void (*kernel)(Arguments);
};

constexpr Fault kFaults[] = {
    {"read_past_end", read_past_end},
    {"write_past_end", write_past_end},
    {"read_before_begin", read_before_begin},
    {"read_past_shared", read_past_shared},
    {"write_past_shared", write_past_shared},
    {"write_before_shared", write_before_shared},
    {"misaligned_vector", misaligned_vector},
    {"misaligned_shared_vector", misaligned_shared_vector},
    {"library_copy_past_end", library_copy_past_end},
    {"uninitialised_shared", uninitialised_shared},
    {"missing_syncthreads", missing_syncthreads},
    {"missing_syncthreads_before_reuse", missing_syncthreads_before_reuse},
    {"missing_syncwarp", missing_syncwarp},
    {"missing_syncwarp_before_reuse", missing_syncwarp_before_reuse},
    {"shuffle_for_syncwarp", shuffle_for_syncwarp},
    {"syncwarp_of_half", syncwarp_of_half},
    {"syncwarp_between_warps", syncwarp_between_warps},
    {"plain_read_of_atomic", plain_read_of_atomic},
    {"ldmatrix_before_syncwarp", ldmatrix_before_syncwarp},
    {"missing_syncthreads_in_device_memory", missing_syncthreads_in_device_memory},
    {"read_before_wait", read_before_wait},
    {"wait_for_too_few", wait_for_too_few},
    {"wait_without_syncthreads", wait_without_syncthreads},
    {"copy_into_what_is_read", copy_into_what_is_read},
    {"copy_past_end", copy_past_end},
    {"blocks_write_the_same", blocks_write_the_same},
    {"block_reads_what_another_writes", block_reads_what_another_writes},
    {"block_writes_what_another_reads", block_writes_what_another_reads},
};

}  // namespace
}  // namespace bao

using namespace bao;

// Gives -1 where there is no such fault.
BAO_EXPORT int32_t probe_fault(cudaStream_t stream, const char* name, const float* data, float* out, int32_t mended) {
  for (const Fault& fault : kFaults) {
    if (std::strcmp(fault.name, name) == 0) {
      return launch(fault.name, fault.kernel, 2, 64, 256, stream, Arguments{data, out, mended != 0});
    }
  }
  return -1;
}
