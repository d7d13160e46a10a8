// Mixtures of experts: routing, the order of rows by expert, and the weighted sum of what experts give.
#include "grid_stride.cuh"
#include "reduce.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kLanes = 32;
constexpr int kPermuteThreads = 256;
constexpr int kPermuteWarps = kPermuteThreads / kLanes;
// cfloat's FLT_MAX: what is no number is chosen after all that is.
constexpr float kLast = -3.402823466e38f;

struct MoeRouteArgs {
  int32_t num_experts, top_k, scoring, num_groups, topk_groups, renormalize;
  float scale;
};

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) % kLanes; }

// NaN marks what can't be chosen, or was chosen before.
__device__ inline bool is_taken(float value) { return value != value; }

struct Choice {
  float value;
  int index;
};

// The greater of two, the lower index among equals; index -1 is nothing.
__device__ inline Choice better(Choice a, Choice b) {
  if (b.index < 0) return a;
  if (a.index < 0 || b.value > a.value || (b.value == a.value && b.index < a.index)) return b;
  return a;
}

// The greatest of what is not taken, the lowest index among equals; it is taken then. By one warp; all lanes get the index.
__device__ inline int take_best(float* values, int n) {
  Choice best{0, -1};
  for (int i = lane_id(); i < n; i += kLanes) {
    if (!is_taken(values[i])) best = better(best, {values[i], i});
  }
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    best = better(best, {__shfl_xor_sync(kFullWarp, best.value, lanes), __shfl_xor_sync(kFullWarp, best.index, lanes)});
  }
  __syncwarp();
  if (best.index >= 0 && lane_id() == best.index % kLanes) values[best.index] = NAN;
  __syncwarp();
  return best.index;
}

__device__ inline void score_experts(Global<const float> logits, int n, bool sigmoid, float* scores) {
  float maximum = -INFINITY;
  for (int i = lane_id(); i < n; i += kLanes) maximum = fmaxf(maximum, logits[i]);
  maximum = warp_reduce(maximum, Max());
  float sum = 0;
  for (int i = lane_id(); i < n; i += kLanes) {
    scores[i] = sigmoid ? 1.0f / (1.0f + expf(-logits[i])) : expf(logits[i] - maximum);
    sum += scores[i];
  }
  sum = warp_reduce(sum, Sum());
  if (!sigmoid) {
    for (int i = lane_id(); i < n; i += kLanes) scores[i] /= sum;
  }
  __syncwarp();
}

// Leaves the experts of the topk_groups best groups to choose from; a group counts the sum of its two best experts.
__device__ inline void limit_groups(const MoeRouteArgs& a, float* choice, float* group_scores) {
  const int size = a.num_experts / a.num_groups;
  for (int g = lane_id(); g < a.num_groups; g += kLanes) {
    float first = kLast, second = kLast;
    for (int i = g * size; i < (g + 1) * size; i++) {
      if (choice[i] > first) {
        second = first;
        first = choice[i];
      } else if (choice[i] > second) {
        second = choice[i];
      }
    }
    group_scores[g] = size == 1 ? first : first + second;
  }
  __syncwarp();
  for (int i = 0; i < a.topk_groups; i++) take_best(group_scores, a.num_groups);
  for (int i = lane_id(); i < a.num_experts; i += kLanes) {
    if (!is_taken(group_scores[i / size])) choice[i] = NAN;
  }
  __syncwarp();
}

// A warp for each token.
__global__ void moe_route_kernel(Global<const float> logits, Global<const float> correction_bias, Global<int32_t> ids,
                                 Global<float> weights, MoeRouteArgs a) {
  await_previous_kernel();
  float* scores = shared_memory<float>();
  float* choice = scores + a.num_experts;
  const int64_t token = blockIdx.x;
  score_experts(logits + token * a.num_experts, a.num_experts, a.scoring == 1, scores);
  for (int i = lane_id(); i < a.num_experts; i += kLanes) {
    const float value = scores[i] + (correction_bias ? correction_bias[i] : 0.0f);
    choice[i] = is_taken(value) ? kLast : value;
  }
  __syncwarp();
  if (a.topk_groups < a.num_groups) limit_groups(a, choice, choice + a.num_experts);
  float sum = 0;
  for (int j = 0; j < a.top_k; j++) {
    const int expert = take_best(choice, a.num_experts);
    sum += scores[expert];
    if (lane_id() != 0) continue;
    ids[token * a.top_k + j] = expert;
    weights[token * a.top_k + j] = scores[expert];
  }
  if (lane_id() != 0) return;
  // Scores of sigmoid may all vanish.
  const float divisor = a.renormalize ? sum + 1e-20f : 1.0f;
  for (int j = 0; j < a.top_k; j++) weights[token * a.top_k + j] = weights[token * a.top_k + j] / divisor * a.scale;
}

// A stable counting sort by one block. Each warp has a range of the pairs; next[warp][expert] is first how many pairs of the expert the
// warp has, then the row of the next one.
__global__ void __launch_bounds__(kPermuteThreads)
    moe_permute_kernel(Global<const int32_t> ids, Global<int32_t> expert_offsets, Global<int32_t> row_of_pair,
                       Global<int32_t> token_of_row, int num_pairs, int top_k, int num_experts) {
  await_previous_kernel();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = lane_id();
  int* counts = shared_memory<int>();
  int* next = counts + warp * num_experts;
  int* starts = counts + kPermuteWarps * num_experts;
  const int steps = (num_pairs + kPermuteThreads - 1) / kPermuteThreads;
  const int begin = warp * steps * kLanes;
  for (int i = thread; i < kPermuteWarps * num_experts; i += kPermuteThreads) counts[i] = 0;
  __syncthreads();
  for (int step = 0; step < steps; step++) {
    const int pair = begin + step * kLanes + lane;
    if (pair < num_pairs) atomicAdd(&next[ids[pair]], 1);
  }
  __syncthreads();
  for (int e = thread; e < num_experts; e += kPermuteThreads) {
    int sum = 0;
    for (int w = 0; w < kPermuteWarps; w++) sum += counts[w * num_experts + e];
    starts[e] = sum;
  }
  __syncthreads();
  if (thread == 0) {
    int row = 0;
    for (int e = 0; e < num_experts; e++) {
      const int count = starts[e];
      starts[e] = row;
      expert_offsets[e] = row;
      row += count;
    }
    expert_offsets[num_experts] = row;
  }
  __syncthreads();
  for (int e = thread; e < num_experts; e += kPermuteThreads) {
    int row = starts[e];
    for (int w = 0; w < kPermuteWarps; w++) {
      const int count = counts[w * num_experts + e];
      counts[w * num_experts + e] = row;
      row += count;
    }
  }
  __syncthreads();
  for (int step = 0; step < steps; step++) {
    const int pair = begin + step * kLanes + lane;
    const int expert = pair < num_pairs ? ids[pair] : -1;
    // Lanes before and behind this one with the same expert.
    int before = 0, behind = 0;
    for (int other = 0; other < kLanes; other++) {
      const bool same = __shfl_sync(kFullWarp, expert, other) == expert;
      before += same && other < lane ? 1 : 0;
      behind += same && other > lane ? 1 : 0;
    }
    const int row = expert >= 0 ? next[expert] + before : 0;
    __syncwarp();
    if (expert >= 0) {
      row_of_pair[pair] = row;
      token_of_row[row] = pair / top_k;
      if (behind == 0) next[expert] = row + 1;
    }
    __syncwarp();
  }
}

template <class T>
__global__ void moe_combine_kernel(Global<const T> rows, Global<const int32_t> row_of_pair, Global<const float> weights, Global<T> out,
                                   int64_t elements, int top_k, int n) {
  await_previous_kernel();
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const int64_t token = i / n, column = i % n;
    float sum = 0;
    for (int64_t pair = token * top_k; pair < (token + 1) * top_k; pair++) {
      const float product = weights[pair] * to_float(rows[static_cast<int64_t>(row_of_pair[pair]) * n + column]);
      sum = pair == token * top_k ? product : sum + product;
    }
    out[i] = from_float<T>(sum);
  }
}

}  // namespace
}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_moe_route(const Stream* stream, const float* logits, const float* correction_bias, int32_t* ids, float* weights,
                                 int32_t num_tokens, int32_t num_experts, int32_t top_k, int32_t scoring, int32_t num_groups,
                                 int32_t topk_groups, int32_t renormalize, float scale) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_experts <= 0 || top_k <= 0 || scoring < 0 || scoring > 1) return kBadShape;
  if (num_groups <= 0 || num_experts % num_groups != 0 || topk_groups <= 0 || topk_groups > num_groups) return kBadShape;
  if (top_k > num_experts / num_groups * topk_groups) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!logits || !ids || !weights) return kNullPointer;
  const MoeRouteArgs args{num_experts, top_k, scoring, num_groups, topk_groups, renormalize, scale};
  const size_t shared_bytes = static_cast<size_t>(2 * num_experts + num_groups) * sizeof(float);
  return launched(launch("moe_route", moe_route_kernel, static_cast<unsigned>(num_tokens), kLanes, shared_bytes, stream->stream, logits,
                         correction_bias, ids, weights, args));
}

BAO_EXPORT int32_t bao_moe_permute(const Stream* stream, const int32_t* ids, int32_t* expert_offsets, int32_t* row_of_pair,
                                   int32_t* token_of_row, int32_t num_tokens, int32_t top_k, int32_t num_experts) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || top_k <= 0 || num_experts <= 0) return kBadShape;
  const int64_t num_pairs = static_cast<int64_t>(num_tokens) * top_k;
  if (num_pairs > INT32_MAX - kPermuteThreads) return kBadShape;
  if (!expert_offsets || (num_pairs > 0 && (!ids || !row_of_pair || !token_of_row))) return kNullPointer;
  const size_t shared_bytes = static_cast<size_t>(kPermuteWarps + 1) * static_cast<size_t>(num_experts) * sizeof(int);
  return launched(launch("moe_permute", moe_permute_kernel, 1, kPermuteThreads, shared_bytes, stream->stream, ids, expert_offsets,
                         row_of_pair, token_of_row, static_cast<int32_t>(num_pairs), top_k, num_experts));
}

BAO_EXPORT int32_t bao_moe_combine(const Stream* stream, const void* rows, const int32_t* row_of_pair, const float* weights, void* out,
                                   int32_t num_tokens, int32_t top_k, int32_t n) {
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || top_k <= 0 || n <= 0) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!rows || !row_of_pair || !weights || !out) return kNullPointer;
  const int64_t elements = static_cast<int64_t>(num_tokens) * n;
  return with_activation(stream, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    return launched(launch("moe_combine", moe_combine_kernel<T>, element_blocks(elements), kElementThreads, 0, stream->stream,
                           static_cast<const T*>(rows), row_of_pair, weights, static_cast<T*>(out), elements, top_k, n));
  });
}
