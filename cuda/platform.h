// The one place where CUDA and the emulation differ. Everything else in cuda/*.cu compiles with nvcc and, as C++20, with g++ or clang++.
//
//   Global<T>             a pointer to device memory; checked on every access under the emulation
//   launch(name, kernel, grid, block, shared_bytes, stream, args...)   kernel<<<...>>>(args...)
//   shared_memory<T>()    the block's dynamic shared memory, the only shared memory that kernels use
//   await_previous_kernel()   the first thing that every kernel does: it may have been started while the one before it still runs
//   load_streaming(p, i)  p[i], of memory that is read once
#pragma once

#include <cstddef>

namespace bao {

// Shared memory that a block may ask for on every device from compute capability 8.0 on: 8.6, 8.9 and 12.0 have the least (CUDA C++ Programming
// Guide, "Technical Specifications per Compute Capability").
constexpr size_t kLeastSharedBytes = 99 * 1024;

}  // namespace bao

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace bao {

template <class T>
using Global = T*;

template <class T>
__device__ inline T* shared_memory() {
  extern __shared__ __align__(1024) unsigned char shared[];
  return reinterpret_cast<T*>(shared);
}

template <class U, class T>
__device__ inline U* cast(T* pointer) {
  return reinterpret_cast<U*>(pointer);
}

// The address of `bytes` that are accessed at once.
template <class T>
__device__ inline T* address_of(T* pointer, size_t, size_t) {
  return pointer;
}

template <class T>
__device__ inline T load_streaming(const T* pointer, int64_t i) {
  static_assert(sizeof(T) % sizeof(uint4) == 0, "whole vectors only");
  T value;
  for (size_t j = 0; j < sizeof(T) / sizeof(uint4); j++) {
    reinterpret_cast<uint4*>(&value)[j] = __ldcs(reinterpret_cast<const uint4*>(pointer + i) + j);
  }
  return value;
}

// Programmatic dependent launch (PTX ISA, griddepcontrol): waits until the kernels before this one have ended and what they wrote can be seen, then
// lets the next one start. Without a call in every kernel, one could start before the last but one has ended.
__device__ inline void await_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Whether kernels may be started before the ones before them have ended: from compute capability 9.0 on.
extern bool programmatic_launch;

template <class... Params, class... Args>
int32_t launch(const char*, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
               Args... args) {
  // More than 48 KiB have to be asked for.
  if (shared_bytes > 48 * 1024) {
    const cudaError_t code = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(shared_bytes));
    if (code != cudaSuccess) return code;
  }
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = programmatic_launch ? 1 : 0;
  const cudaError_t code = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  // Taken back, so that the next call does not find it.
  if (code != cudaSuccess) cudaGetLastError();
  return code;
}

}  // namespace bao

#else

#include "emulation/device.h"

namespace bao {

template <class T>
using Global = emulation::CheckedPointer<T>;

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::builtins->shared);
}

template <class U, class T>
Global<U> cast(const Global<T>& pointer) {
  return pointer.template as<U>();
}

template <class T>
T* address_of(const Global<T>& pointer, size_t bytes, size_t alignment) {
  return pointer.checked(bytes, alignment);
}

template <class T>
T load_streaming(const Global<const T>& pointer, int64_t i) {
  return pointer[i];
}

// One kernel runs after the other.
inline void await_previous_kernel() {}

using emulation::launch;

}  // namespace bao

#endif
