// What a .cu file finds in place of CUDA's language extensions when it is compiled as C++.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "grid.h"
#include "runtime.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (bao::emulation::builtins->thread_idx)
#define blockIdx (bao::emulation::builtins->block_idx)
#define blockDim (bao::emulation::builtins->block_dim)
#define gridDim (bao::emulation::builtins->grid_dim)

// Code whose accesses the checker is told of in another way, or need not know.
#define BAO_UNCHECKED __attribute__((no_sanitize("thread")))

using dim3 = bao::emulation::Dim3;

namespace bao::emulation {

#if defined(BAO_EMULATION_CHECKED)
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

// A pointer into one device allocation that checks each access.
template <class T>
class CheckedPointer {
 public:
  CheckedPointer() = default;
  CheckedPointer(T* pointer) : pointer_(pointer), allocation_(find_allocation(pointer)) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  CheckedPointer(const CheckedPointer<U>& other) : pointer_(other.raw()), allocation_(other.allocation()) {}

  T& operator[](int64_t i) const {
    check(pointer_ + i, sizeof(T), alignof(T));
    return pointer_[i];
  }
  T& operator*() const { return (*this)[0]; }
  CheckedPointer operator+(int64_t i) const { return CheckedPointer(pointer_ + i, allocation_); }
  explicit operator bool() const { return pointer_ != nullptr; }

  // The same address as another type.
  template <class U>
  CheckedPointer<U> as() const {
    return CheckedPointer<U>(reinterpret_cast<U*>(pointer_), allocation_);
  }
  // `bytes` from here on may be accessed as a unit of that alignment.
  T* checked(size_t bytes, size_t alignment) const {
    check(pointer_, bytes, alignment);
    return pointer_;
  }

  T* raw() const { return pointer_; }
  Allocation allocation() const { return allocation_; }
  CheckedPointer(T* pointer, Allocation allocation) : pointer_(pointer), allocation_(allocation) {}

 private:
  void check(const void* address, size_t bytes, size_t alignment) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at < allocation_.begin || at + bytes > allocation_.end) [[unlikely]] {
      fault("access of " + std::to_string(bytes) + " bytes at " + hex(address) + ", outside of the allocation [" +
            hex(reinterpret_cast<void*>(allocation_.begin)) + ", " + hex(reinterpret_cast<void*>(allocation_.end)) + ")");
    }
    if (at % alignment != 0) [[unlikely]] {
      fault("misaligned access of " + std::to_string(bytes) + " bytes at " + hex(address));
    }
  }

  T* pointer_ = nullptr;
  Allocation allocation_;
};

template <class T>
struct Exchange {
  T value;
  int source;
};

// A lane whose source is out of the warp keeps its value; one whose source is not in the mask would get an undefined one.
template <class T>
T shuffle(const char* what, uint32_t mask, T value, int source) {
  const int own = static_cast<int>(builtins->lane);
  if (source < 0 || source >= static_cast<int>(kWarpSize)) source = own;
  if (source != own && (mask >> own & 1) && !(mask >> source & 1)) fault(std::string(what) + " from lane " + std::to_string(source) + ", which is not in the mask");
  Exchange<T> slot{value, source};
  warp_collective(what, mask, &slot, [](void* const* slots, uint32_t lanes) BAO_UNCHECKED {
    T values[kWarpSize];
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      if (lanes >> lane & 1) values[lane] = static_cast<Exchange<T>*>(slots[lane])->value;
    }
    for (unsigned lane = 0; lane < kWarpSize; lane++) {
      if (!(lanes >> lane & 1)) continue;
      auto* each = static_cast<Exchange<T>*>(slots[lane]);
      each->value = values[each->source];
    }
  });
  return slot.value;
}

// The lane that is so many away; the instruction looks at five bits of the distance.
inline int lane_at(int sign, unsigned distance) { return static_cast<int>(builtins->lane) + sign * static_cast<int>(distance % kWarpSize); }

struct Vote {
  uint32_t value;
};

// As nvcc's <<<>>>: arguments are taken by value now, the grid runs when the stream gets to it.
template <class... Params, class... Args>
int32_t launch(const char* name, void (*kernel)(Params...), Dim3 grid, Dim3 block, size_t shared_bytes, cudaStream_t stream,
               Args... args) {
  return enqueue_kernel(name, grid, block, shared_bytes, stream, kChecked, [=]() -> std::function<void()> {
    const std::tuple<Params...> params{Params(args)...};
    return [=] { std::apply(kernel, params); };
  });
}

}  // namespace bao::emulation

inline void __syncthreads() { bao::emulation::block_barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) { bao::emulation::warp_barrier(mask); }

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  return bao::emulation::shuffle("__shfl_xor_sync", mask, value, static_cast<int>(bao::emulation::builtins->lane) ^ (lanes & 31));
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned lanes) {
  return bao::emulation::shuffle("__shfl_up_sync", mask, value, bao::emulation::lane_at(-1, lanes));
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned lanes) {
  return bao::emulation::shuffle("__shfl_down_sync", mask, value, bao::emulation::lane_at(1, lanes));
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int lane) {
  return bao::emulation::shuffle("__shfl_sync", mask, value, lane & 31);
}

inline uint32_t __ballot_sync(uint32_t mask, bool predicate) {
  using bao::emulation::Vote;
  Vote slot{predicate};
  bao::emulation::warp_collective("__ballot_sync", mask, &slot, [](void* const* slots, uint32_t lanes) BAO_UNCHECKED {
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
      if ((lanes >> lane & 1) && static_cast<Vote*>(slots[lane])->value) votes |= 1u << lane;
    }
    for (unsigned lane = 0; lane < 32; lane++) {
      if (lanes >> lane & 1) static_cast<Vote*>(slots[lane])->value = votes;
    }
  });
  return slot.value;
}
inline int __any_sync(uint32_t mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, bool predicate) { return __ballot_sync(mask, predicate) == mask; }

inline int __popc(uint32_t bits) { return std::popcount(bits); }
inline int __ffs(uint32_t bits) { return bits == 0 ? 0 : std::countr_zero(bits) + 1; }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
// Never fused with what is around them.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }

// c plus the sum of the products of four signed bytes.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}

template <class T, class Change>
BAO_UNCHECKED T atomic_change(T* address, Change change) {
  if constexpr (bao::emulation::kChecked) bao::emulation::note_atomic(address, sizeof(T));
  const T before = *address;
  *address = change(before);
  return before;
}

inline uint32_t atomicAdd(uint32_t* address, uint32_t value) {
  return atomic_change(address, [=](uint32_t before) { return before + value; });
}
inline int atomicAdd(int* address, int value) {
  return atomic_change(address, [=](int before) { return before + value; });
}
inline int atomicOr(int* address, int value) {
  return atomic_change(address, [=](int before) { return before | value; });
}
