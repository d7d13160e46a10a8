// Kernels that try the emulation itself: fragments written out with the lanes' own numbers, and mistakes that it must report.
#include "../../cpu/abi.h"
#include "../../cuda/ptx.cuh"

namespace bao {
namespace {

// One mma on fragments as the host laid them out: 8 elements of A and 4 of B for each lane.
__global__ void mma_kernel(Global<const float> a, Global<const float> b, Global<float> c) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t fragment_a[4], fragment_b[2];
  for (int i = 0; i < 4; i++) fragment_a[i] = pack<Half>(a[lane * 8 + 2 * i], a[lane * 8 + 2 * i + 1]);
  for (int i = 0; i < 2; i++) fragment_b[i] = pack<Half>(b[lane * 4 + 2 * i], b[lane * 4 + 2 * i + 1]);
  float sum[4] = {};
  mma_m16n8k16<Half>(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; i++) c[lane * 4 + i] = sum[i];
}

// Four 8x8 matrices of 16-bit numbers one after another, as ldmatrix gives them to the lanes.
__global__ void ldmatrix_kernel(Global<const int32_t> in, Global<int32_t> plain, Global<int32_t> transposed) {
  const int lane = static_cast<int>(threadIdx.x);
  uint16_t* matrices = shared_memory<uint16_t>();
  for (int i = lane; i < 256; i += 32) matrices[i] = static_cast<uint16_t>(in[i]);
  __syncwarp();
  uint32_t four[4], two[2];
  ldmatrix_x4(four, matrices + lane * 8);
  ldmatrix_x2_trans(two, matrices + lane % 16 * 8);
  for (int i = 0; i < 4; i++) plain[lane * 4 + i] = static_cast<int32_t>(four[i]);
  for (int i = 0; i < 2; i++) transposed[lane * 2 + i] = static_cast<int32_t>(two[i]);
}

enum Mistake { kPastTheEnd, kMisaligned, kLoneBarrier, kPartialShuffle, kNoWait, kUninitialised, kNoBarrier };

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
      result = __shfl_xor_sync(1u, result, 1);
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

BAO_EXPORT int32_t probe_mma(cudaStream_t stream, const float* a, const float* b, float* c) {
  return launch("probe_mma", mma_kernel, 1, 32, 0, stream, a, b, c);
}

BAO_EXPORT int32_t probe_ldmatrix(cudaStream_t stream, const int32_t* in, int32_t* plain, int32_t* transposed) {
  return launch("probe_ldmatrix", ldmatrix_kernel, 1, 32, 512, stream, in, plain, transposed);
}

BAO_EXPORT int32_t probe_mistake(cudaStream_t stream, float* data, float* out, int32_t mistake) {
  return launch("probe_mistake", mistake_kernel, 2, 64, 256, stream, data, out, mistake);
}
