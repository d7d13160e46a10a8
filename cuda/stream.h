// The handle that ops get: a CUDA stream with what belongs to it.
//
// How to add an op (its row in src/device/ops.ts comes first): a kernel template over the activation type that takes Global<T> pointers,
// and a function `bao_NAME` that validates, and launches through `with_activation`. See norm.cu.
#pragma once

#include "../cpu/abi.h"
#include "float_types.h"
#include "platform.h"

namespace bao {

struct Stream {
  cudaStream_t stream;
  // Type of every `act` argument.
  int32_t activation;
  int32_t num_multiprocessors;
  // Scratch of the op that runs; ops of one stream take turns.
  void* workspace;
  int64_t workspace_bytes;
};

// Errors of the CUDA runtime, added to this, are told apart from those of cpu/abi.h.
constexpr int32_t kCudaError = 1000;

inline int32_t launched(int32_t cuda_error) { return cuda_error == 0 ? kOk : kCudaError + cuda_error; }

// Calls f with a null pointer of the type that `dtype` names.
template <class F>
int32_t with_dtype(int32_t dtype, F f) {
  switch (dtype) {
    case kFloat32:
      return f(static_cast<float*>(nullptr));
    case kBFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case kFloat16:
      return f(static_cast<Half*>(nullptr));
    default:
      return kBadDType;
  }
}

// The same for types of the KV cache.
template <class F>
int32_t with_cache_dtype(int32_t dtype, F f) {
  return dtype == kFp8E4M3 ? f(static_cast<Float8E4M3*>(nullptr)) : with_dtype(dtype, f);
}

template <class F>
int32_t with_activation(const Stream* stream, F f) {
  return with_dtype(stream->activation, f);
}

template <class Pointer>
using Pointee = std::remove_pointer_t<Pointer>;

}  // namespace bao
