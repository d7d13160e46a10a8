// Kernels that try the emulation itself: fragments written out with the lanes' own numbers, and mistakes that it must report.
#include "../../cpu/abi.h"
#include "../../cuda/ptx.cuh"

namespace bao {
namespace {

// One mma on fragments as the host laid them out: 8 elements of A, 4 of B and 4 of C for each lane.
template <class T>
__global__ void mma_kernel(Global<const float> a, Global<const float> b, Global<float> c) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t fragment_a[4], fragment_b[2];
  for (int i = 0; i < 4; i++) fragment_a[i] = pack<T>(a[lane * 8 + 2 * i], a[lane * 8 + 2 * i + 1]);
  for (int i = 0; i < 2; i++) fragment_b[i] = pack<T>(b[lane * 4 + 2 * i], b[lane * 4 + 2 * i + 1]);
  float sum[4];
  for (int i = 0; i < 4; i++) sum[i] = c[lane * 4 + i];
  mma_m16n8k16<T>(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; i++) c[lane * 4 + i] = sum[i];
}

// The same of signed bytes: 4 words of A and 2 of B for each lane.
__global__ void mma_s8_kernel(Global<const int32_t> a, Global<const int32_t> b, Global<int32_t> c) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t fragment_a[4], fragment_b[2];
  for (int i = 0; i < 4; i++) fragment_a[i] = static_cast<uint32_t>(a[lane * 4 + i]);
  for (int i = 0; i < 2; i++) fragment_b[i] = static_cast<uint32_t>(b[lane * 2 + i]);
  int32_t sum[4];
  for (int i = 0; i < 4; i++) sum[i] = c[lane * 4 + i];
  mma_m16n8k32_s8(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; i++) c[lane * 4 + i] = sum[i];
}

// 32 rows of eight 16-bit numbers, of which lane l names row rows[l] to ldmatrix.
__global__ void ldmatrix_kernel(Global<const int32_t> in, Global<const int32_t> rows, Global<int32_t> plain, Global<int32_t> transposed) {
  const int lane = static_cast<int>(threadIdx.x);
  uint16_t* matrices = shared_memory<uint16_t>();
  for (int i = lane; i < 256; i += 32) matrices[i] = static_cast<uint16_t>(in[i]);
  __syncwarp();
  uint32_t four[4], two[2];
  ldmatrix_x4(four, matrices + rows[lane] * 8);
  ldmatrix_x2_trans(two, matrices + rows[lane] * 8);
  for (int i = 0; i < 4; i++) plain[lane * 4 + i] = static_cast<int32_t>(four[i]);
  for (int i = 0; i < 2; i++) transposed[lane * 2 + i] = static_cast<int32_t>(two[i]);
}

// For idx, up, down and bfly, and each distance below 64, the lane whose number a lane gets.
__global__ void shuffle_kernel(Global<int32_t> out) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int distance = 0; distance < 64; distance++) {
    const int results[4] = {__shfl_sync(kFullWarp, lane, distance), __shfl_up_sync(kFullWarp, lane, static_cast<unsigned>(distance)),
                            __shfl_down_sync(kFullWarp, lane, static_cast<unsigned>(distance)), __shfl_xor_sync(kFullWarp, lane, distance)};
    for (int i = 0; i < 4; i++) out[(i * 64 + distance) * 32 + lane] = results[i];
  }
}

// Votes of the lanes of two masks, each lane for what its bit in `predicates` says.
__global__ void vote_kernel(int predicates, Global<int32_t> out) {
  const int lane = static_cast<int>(threadIdx.x);
  const uint32_t mask = lane < 12 ? 0x00000fffu : 0xfffff000u;
  const bool predicate = static_cast<uint32_t>(predicates) >> lane & 1;
  out[lane] = static_cast<int32_t>(__ballot_sync(mask, predicate));
  out[32 + lane] = __any_sync(mask, predicate);
  out[64 + lane] = __all_sync(mask, predicate);
}

__device__ inline void copy_four(float* shared, const Global<const float>& data, int i, bool valid) {
  cp_async_16(shared + 4 * i, address_of(data + 4 * i, 16, 16), valid);
}

// Four copies: two in the first group, none in the second, one in the third, one that is in no group. After waits for all groups but two,
// one and none, the first float of each of the first three. Then two copies of 4 bytes, before and after they are waited for.
__global__ void copy_kernel(Global<const float> data, Global<float> out) {
  float* shared = shared_memory<float>();
  copy_four(shared, data, 0, true);
  copy_four(shared, data, 1, false);
  cp_async_commit();
  cp_async_commit();
  copy_four(shared, data, 2, true);
  cp_async_commit();
  copy_four(shared, data, 3, true);
  const auto show = [&](int moment) {
    for (int i = 0; i < 4; i++) out[moment * 4 + i] = shared[4 * i];
  };
  cp_async_wait<3>();
  show(0);
  cp_async_wait<2>();
  show(1);
  cp_async_wait<1>();
  show(2);
  cp_async_wait<0>();
  show(3);
  cp_async_commit();
  cp_async_wait<0>();
  show(4);
  for (int i = 0; i < 2; i++) cp_async_4(shared + 16 + i, address_of(data + 16 + i, 4, 4), i == 0);
  cp_async_commit();
  for (int i = 0; i < 4; i++) out[20 + i] = shared[16 + i];
  cp_async_wait<0>();
  for (int i = 0; i < 4; i++) out[24 + i] = shared[16 + i];
}

enum Mistake { kPastTheEnd, kMisaligned, kLoneBarrier, kPartialShuffle, kNoWait, kUninitialised, kNoBarrier, kForeignLane };

__global__ void mistake_kernel(Global<float> data, Global<float> out, int mistake) {
  const int thread = static_cast<int>(threadIdx.x);
  float* shared = shared_memory<float>();
  float result = 0;
  switch (mistake) {
    case kPastTheEnd:
      result = data[thread + 61];
      break;
    case kMisaligned:
      result = *cast<float>(cast<unsigned char>(data) + 2);
      break;
    case kLoneBarrier:
      if (thread == 5) __shfl_xor_sync(kFullWarp, result, 1);
      break;
    case kPartialShuffle:
      result = __shfl_sync(1u, result, 0);
      break;
    case kNoWait:
      if (thread < 8) cp_async_16(shared + 4 * thread, address_of(data + 4 * thread, 16, 16), true);
      cp_async_commit();
      result = shared[thread];
      cp_async_wait<0>();
      break;
    case kUninitialised:
      result = shared[thread];
      break;
    case kForeignLane:
      if (thread < 16) result = __shfl_xor_sync(0x0000ffffu, result, 16);
      break;
    case kNoBarrier:
      shared[thread] = static_cast<float>(thread);
      result = shared[63 - thread];
      break;
  }
  out[thread] = result;
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t probe_mma(cudaStream_t stream, const float* a, const float* b, float* c, int32_t bfloat16) {
  return launch("probe_mma", bfloat16 ? mma_kernel<BFloat16> : mma_kernel<Half>, 1, 32, 0, stream, a, b, c);
}

BAO_EXPORT int32_t probe_mma_s8(cudaStream_t stream, const int32_t* a, const int32_t* b, int32_t* c) {
  return launch("probe_mma_s8", mma_s8_kernel, 1, 32, 0, stream, a, b, c);
}

BAO_EXPORT int32_t probe_ldmatrix(cudaStream_t stream, const int32_t* in, const int32_t* rows, int32_t* plain, int32_t* transposed) {
  return launch("probe_ldmatrix", ldmatrix_kernel, 1, 32, 512, stream, in, rows, plain, transposed);
}

BAO_EXPORT int32_t probe_shuffle(cudaStream_t stream, int32_t* out) { return launch("probe_shuffle", shuffle_kernel, 1, 32, 0, stream, out); }

BAO_EXPORT int32_t probe_vote(cudaStream_t stream, int32_t predicates, int32_t* out) {
  return launch("probe_vote", vote_kernel, 1, 32, 0, stream, predicates, out);
}

BAO_EXPORT int32_t probe_copy(cudaStream_t stream, const float* data, float* out) {
  return launch("probe_copy", copy_kernel, 1, 1, 80, stream, data, out);
}

BAO_EXPORT int32_t probe_mistake(cudaStream_t stream, float* data, float* out, int32_t mistake) {
  return launch("probe_mistake", mistake_kernel, 2, 64, 256, stream, data, out, mistake);
}
