// Mixtures of experts: routing, the order of rows by expert, and the weighted sum of what experts give.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "kernels.h"
#include "stream.h"

using namespace bao;

namespace {

constexpr int64_t kTokensPerChunk = 16;
constexpr int64_t kElementsPerChunk = 1 << 13;

struct MoeRouteArgs {
  const float* logits;
  const float* correction_bias;
  int32_t* ids;
  float* weights;
  int32_t num_tokens, num_experts, top_k, scoring, num_groups, topk_groups, renormalize;
  float scale;
};

// What routing needs of a thread's scratch: an expert's score, what it is chosen by, and the groups' scores.
int64_t route_scratch_floats(int64_t num_experts, int64_t num_groups) { return 2 * num_experts + num_groups; }

// NaN marks what can't be chosen, or was chosen before.
constexpr float kTaken = std::numeric_limits<float>::quiet_NaN();

// The greatest of what is not taken, the lowest index among equals; it is taken then. -1 where nothing is left.
int32_t take_best(float* values, int32_t n) {
  int32_t best = -1;
  for (int32_t i = 0; i < n; i++) {
    if (std::isnan(values[i])) continue;
    if (best < 0 || values[i] > values[best]) best = i;
  }
  if (best >= 0) values[best] = kTaken;
  return best;
}

void score_experts(const float* logits, int32_t n, bool sigmoid, float* scores) {
  if (sigmoid) {
    for (int32_t i = 0; i < n; i++) scores[i] = 1.0f / (1.0f + std::exp(-logits[i]));
    return;
  }
  const float max = *std::max_element(logits, logits + n);
  float sum = 0;
  for (int32_t i = 0; i < n; i++) {
    scores[i] = std::exp(logits[i] - max);
    sum += scores[i];
  }
  for (int32_t i = 0; i < n; i++) scores[i] /= sum;
}

// Leaves the experts of the topk_groups best groups to choose from; a group counts the sum of its two best experts.
void limit_groups(const MoeRouteArgs& a, float* choice, float* group_scores) {
  const int32_t size = a.num_experts / a.num_groups;
  for (int32_t g = 0; g < a.num_groups; g++) {
    float first = -FLT_MAX, second = -FLT_MAX;
    for (int32_t i = g * size; i < (g + 1) * size; i++) {
      if (choice[i] > first) {
        second = first;
        first = choice[i];
      } else if (choice[i] > second) {
        second = choice[i];
      }
    }
    group_scores[g] = size == 1 ? first : first + second;
  }
  for (int32_t i = 0; i < a.topk_groups; i++) take_best(group_scores, a.num_groups);
  for (int32_t g = 0; g < a.num_groups; g++) {
    if (!std::isnan(group_scores[g])) std::fill(choice + g * size, choice + (g + 1) * size, kTaken);
  }
}

void route_token(const MoeRouteArgs& a, int64_t token, float* scratch) {
  float* scores = scratch;
  float* choice = scores + a.num_experts;
  score_experts(a.logits + token * a.num_experts, a.num_experts, a.scoring == 1, scores);
  for (int32_t i = 0; i < a.num_experts; i++) {
    const float value = scores[i] + (a.correction_bias ? a.correction_bias[i] : 0.0f);
    choice[i] = std::isnan(value) ? -FLT_MAX : value;
  }
  if (a.topk_groups < a.num_groups) limit_groups(a, choice, choice + a.num_experts);
  int32_t* ids = a.ids + token * a.top_k;
  float* weights = a.weights + token * a.top_k;
  float sum = 0;
  for (int32_t j = 0; j < a.top_k; j++) {
    ids[j] = take_best(choice, a.num_experts);
    weights[j] = scores[ids[j]];
    sum += weights[j];
  }
  // Scores of sigmoid may all vanish.
  const float divisor = a.renormalize ? sum + 1e-20f : 1.0f;
  for (int32_t j = 0; j < a.top_k; j++) weights[j] = weights[j] / divisor * a.scale;
}

void moe_route_chunk(const MoeRouteArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kTokensPerChunk;
  const int64_t end = std::min<int64_t>(a.num_tokens, begin + kTokensPerChunk);
  for (int64_t token = begin; token < end; token++) route_token(a, token, static_cast<float*>(c.scratch));
}

struct MoePermuteArgs {
  const int32_t* ids;
  int32_t* expert_offsets;
  int32_t* row_of_pair;
  int32_t* token_of_row;
  int32_t num_pairs, top_k, num_experts;
};

// A counting sort: some nanoseconds a pair, too little to share.
void moe_permute_chunk(const MoePermuteArgs& a, const ChunkContext&) {
  int32_t* next = a.expert_offsets + 1;
  std::fill(a.expert_offsets, a.expert_offsets + a.num_experts + 1, 0);
  // next[e] becomes the first row of expert e, then moves on to its end, which is what offset e + 1 is.
  for (int32_t pair = 0; pair < a.num_pairs; pair++) next[a.ids[pair]]++;
  int32_t row = 0;
  for (int32_t e = 0; e < a.num_experts; e++) {
    const int32_t count = next[e];
    next[e] = row;
    row += count;
  }
  for (int32_t pair = 0; pair < a.num_pairs; pair++) {
    const int32_t target = next[a.ids[pair]]++;
    a.row_of_pair[pair] = target;
    a.token_of_row[target] = pair / a.top_k;
  }
}

struct MoeCombineArgs {
  const float* rows;
  const int32_t* row_of_pair;
  const float* weights;
  float* out;
  int32_t num_tokens, top_k, n, tokens_per_chunk;
};

void moe_combine_chunk(const MoeCombineArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.tokens_per_chunk;
  const int64_t end = std::min<int64_t>(a.num_tokens, begin + a.tokens_per_chunk);
  for (int64_t token = begin; token < end; token++) {
    float* __restrict out = a.out + token * a.n;
    for (int64_t pair = token * a.top_k; pair < (token + 1) * a.top_k; pair++) {
      const float* __restrict row = a.rows + static_cast<int64_t>(a.row_of_pair[pair]) * a.n;
      const float weight = a.weights[pair];
      if (pair == token * a.top_k) {
        for (int32_t i = 0; i < a.n; i++) out[i] = weight * row[i];
      } else {
        for (int32_t i = 0; i < a.n; i++) out[i] += weight * row[i];
      }
    }
  }
}

}  // namespace

BAO_EXPORT int32_t bao_moe_route(void* handle, const float* logits, const float* correction_bias, int32_t* ids, float* weights,
                                 int32_t num_tokens, int32_t num_experts, int32_t top_k, int32_t scoring, int32_t num_groups,
                                 int32_t topk_groups, int32_t renormalize, float scale) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || num_experts <= 0 || top_k <= 0 || scoring < 0 || scoring > 1) return kBadShape;
  if (num_groups <= 0 || num_experts % num_groups != 0 || topk_groups <= 0 || topk_groups > num_groups) return kBadShape;
  if (top_k > num_experts / num_groups * topk_groups) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!logits || !ids || !weights) return kNullPointer;
  const int64_t scratch_floats = route_scratch_floats(num_experts, num_groups);
  if (const int32_t error = stream->reserve(static_cast<size_t>(scratch_floats) * sizeof(float), 0)) return error;
  const MoeRouteArgs args{logits, correction_bias, ids,        weights,     num_tokens,  num_experts,
                          top_k,  scoring,         num_groups, topk_groups, renormalize, scale};
  return stream->enqueue(moe_route_chunk, args, ceil_div(num_tokens, kTokensPerChunk));
}

BAO_EXPORT int32_t bao_moe_permute(void* handle, const int32_t* ids, int32_t* expert_offsets, int32_t* row_of_pair,
                                   int32_t* token_of_row, int32_t num_tokens, int32_t top_k, int32_t num_experts) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || top_k <= 0 || num_experts <= 0) return kBadShape;
  const int64_t num_pairs = static_cast<int64_t>(num_tokens) * top_k;
  if (num_pairs > INT32_MAX) return kBadShape;
  if (!expert_offsets || (num_pairs > 0 && (!ids || !row_of_pair || !token_of_row))) return kNullPointer;
  const MoePermuteArgs args{ids, expert_offsets, row_of_pair, token_of_row, static_cast<int32_t>(num_pairs), top_k, num_experts};
  return stream->enqueue(moe_permute_chunk, args, 1);
}

BAO_EXPORT int32_t bao_moe_combine(void* handle, const float* rows, const int32_t* row_of_pair, const float* weights, float* out,
                                   int32_t num_tokens, int32_t top_k, int32_t n) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_tokens < 0 || top_k <= 0 || n <= 0) return kBadShape;
  if (num_tokens == 0) return kOk;
  if (!rows || !row_of_pair || !weights || !out) return kNullPointer;
  const auto per_chunk = static_cast<int32_t>(std::max<int64_t>(1, kElementsPerChunk / (static_cast<int64_t>(n) * top_k)));
  const MoeCombineArgs args{rows, row_of_pair, weights, out, num_tokens, top_k, n, per_chunk};
  return stream->enqueue(moe_combine_chunk, args, ceil_div(num_tokens, per_chunk));
}
