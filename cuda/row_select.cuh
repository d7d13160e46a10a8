// Selection in one row of logits by a block, without sorting it. A row is cut into segments of kSegment; sums are taken within a segment
// by one warp in a fixed order, in double over segments.
#pragma once

#include "reduce.cuh"

namespace bao {

constexpr int kSegment = 1024;
constexpr int kRowThreads = 1024;
constexpr float kMinusInfinity = -INFINITY;

// NaN counts as -infinity.
__device__ inline float logit_key(float x) { return x > kMinusInfinity ? x : kMinusInfinity; }

// Maps floats to unsigned integers of the same order.
__device__ inline uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline float from_ordered_bits(uint32_t bits) {
  return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

// Shared memory of a row's block.
struct RowScratch {
  float floats[32];
  int ints[32];
  double doubles[32];
  int histogram[256];
  int counter;
};

__device__ inline int thread_id() { return static_cast<int>(threadIdx.x); }

// The greatest value of f(i), and the lowest i that has it; {-infinity, n} where f is nowhere greater.
struct Best {
  float value;
  int index;
};

template <class F>
__device__ Best block_best(int n, F f, RowScratch& s) {
  Best best{kMinusInfinity, n};
  for (int i = thread_id(); i < n; i += kRowThreads) {
    const float value = f(i);
    if (value > best.value) best = {value, i};
  }
  const float value = block_reduce(best.value, Max(), s.floats);
  const int candidate = best.value == value ? best.index : n;
  return {value, -block_reduce(-candidate, Max(), s.ints)};
}

// How many i have f(i) true.
template <class F>
__device__ int block_count(int n, F f, RowScratch& s) {
  int count = 0;
  for (int i = thread_id(); i < n; i += kRowThreads) count += f(i) ? 1 : 0;
  return block_reduce(count, Sum(), s.ints);
}

// Sums of f over each segment into sums[], and over all of them as the result.
template <class F>
__device__ double block_sum(int n, F f, Global<double> sums, RowScratch& s) {
  const int segments = (n + kSegment - 1) / kSegment, lane = thread_id() % 32;
  for (int segment = thread_id() / 32; segment < segments; segment += kRowThreads / 32) {
    float sum = 0;
    for (int i = segment * kSegment + lane; i < n && i < (segment + 1) * kSegment; i += 32) sum += f(i);
    sum = warp_reduce(sum, Sum());
    if (lane == 0) sums[segment] = sum;
  }
  __syncthreads();
  double total = 0;
  for (int segment = thread_id(); segment < segments; segment += kRowThreads) total += sums[segment];
  return block_reduce(total, Sum(), s.doubles);
}

// The same for kSums functions at once, of which `values(i)` gives the array; sums has room for kSums times the segments.
template <int kSums, class F>
__device__ void block_sums(int n, F values, Global<double> sums, RowScratch& s, double (&totals)[kSums]) {
  const int segments = (n + kSegment - 1) / kSegment, lane = thread_id() % 32;
  for (int segment = thread_id() / 32; segment < segments; segment += kRowThreads / 32) {
    float parts[kSums] = {};
    for (int i = segment * kSegment + lane; i < n && i < (segment + 1) * kSegment; i += 32) values(i, parts);
#pragma unroll
    for (int j = 0; j < kSums; j++) {
      const float sum = warp_reduce(parts[j], Sum());
      if (lane == 0) sums[j * segments + segment] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kSums; j++) {
    double total = 0;
    for (int segment = thread_id(); segment < segments; segment += kRowThreads) total += sums[j * segments + segment];
    totals[j] = block_reduce(total, Sum(), s.doubles);
  }
}

// The k-th greatest of f(0..n), 1 <= k <= n: four rounds of a histogram over 8 bits.
template <class F>
__device__ float kth_greatest(int n, int k, F f, RowScratch& s) {
  uint32_t prefix = 0, known = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = thread_id(); i < 256; i += kRowThreads) s.histogram[i] = 0;
    __syncthreads();
    for (int i = thread_id(); i < n; i += kRowThreads) {
      const uint32_t bits = ordered_bits(f(i));
      if ((bits & known) == prefix) atomicAdd(&s.histogram[bits >> shift & 255], 1);
    }
    __syncthreads();
    int bin = 255;
    for (; bin > 0 && s.histogram[bin] < k; bin--) k -= s.histogram[bin];
    prefix |= static_cast<uint32_t>(bin) << shift;
    known |= 255u << shift;
    __syncthreads();
  }
  return from_ordered_bits(prefix);
}

}  // namespace bao
