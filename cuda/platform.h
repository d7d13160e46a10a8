// The one place where CUDA and the emulation differ. Everything else in cuda/*.cu compiles with nvcc and, as C++20, with g++ or clang++.
//
//   Global<T>             a pointer to device memory; checked on every access under the emulation
//   launch(name, kernel, grid, block, shared_bytes, stream, args...)   kernel<<<...>>>(args...)
//   shared_memory<T>()    the block's dynamic shared memory, the only shared memory that kernels use
#pragma once

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

template <class... Params, class... Args>
int32_t launch(const char*, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
               Args... args) {
  // More than 48 KiB have to be asked for.
  if (shared_bytes > 48 * 1024) {
    const cudaError_t code = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(shared_bytes));
    if (code != cudaSuccess) return code;
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Params>(args)...);
  return cudaGetLastError();
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

using emulation::launch;

}  // namespace bao

#endif
