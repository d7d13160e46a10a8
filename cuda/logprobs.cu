// The op `logprobs`: log probabilities of chosen tokens and of the best ones. A block works on one row at a time.
#include "row_select.cuh"
#include "stream.h"

namespace bao {
namespace {

constexpr int kMaxBlocks = 64;

struct LogprobsArgs {
  int32_t rows, vocab_size, top_n, as_logits, named;
  int64_t segments;
};

// log softmax of one logit: (x - max) - log(sum of exp(x - max)).
struct LogSoftmax {
  float maximum;
  double log_sum;
  bool as_logits;

  __device__ float operator()(float logit) const {
    if (as_logits) return logit;
    // An infinite logit has all the probability; where all are -infinity nothing has any.
    if (maximum - maximum != 0) return maximum > 0 && logit == maximum ? 0.0f : kMinusInfinity;
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(maximum) - log_sum);
  }
};

// The n best ids, descending, ties by lower id: candidates are collected in any order, then each counts those before it.
template <class F>
__device__ void store_best(int vocab_size, int n, F key, Global<int32_t> candidates, Global<int32_t> ids, RowScratch& s) {
  const float cutoff = kth_greatest(vocab_size, n, key, s);
  if (thread_id() == 0) s.counter = 0;
  __syncthreads();
  for (int id = thread_id(); id < vocab_size; id += kRowThreads) {
    if (key(id) >= cutoff) candidates[atomicAdd(&s.counter, 1)] = id;
  }
  __syncthreads();
  const int count = s.counter;
  for (int i = thread_id(); i < count; i += kRowThreads) {
    const int id = candidates[i];
    const float mine = key(id);
    int before = 0;
    for (int j = 0; j < count && before < n; j++) {
      const int other = candidates[j];
      const float theirs = key(other);
      before += theirs > mine || (theirs == mine && other < id) ? 1 : 0;
    }
    if (before < n) ids[before] = id;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kRowThreads, 1)
    logprobs_kernel(Global<const float> logits, Global<const int32_t> targets, Global<const int32_t> named, Global<int32_t> ids, Global<float> values,
                    Global<int32_t> ranks, Global<double> sums, Global<int32_t> candidates, LogprobsArgs a) {
  await_previous_kernel();
  RowScratch& s = *shared_memory<RowScratch>();
  sums = sums + blockIdx.x * a.segments;
  candidates = candidates + static_cast<int64_t>(blockIdx.x) * a.vocab_size;
  for (int row = static_cast<int>(blockIdx.x); row < a.rows; row += static_cast<int>(gridDim.x)) {
    const Global<const float> x = logits + static_cast<int64_t>(row) * a.vocab_size;
    const auto key = [&](int id) { return logit_key(x[id]); };
    LogSoftmax value_of{block_best(a.vocab_size, key, s).value, 0, a.as_logits != 0};
    if (!value_of.as_logits && value_of.maximum - value_of.maximum == 0) {
      value_of.log_sum = log(block_sum(a.vocab_size, [&](int id) { return expf(key(id) - value_of.maximum); }, sums, s));
    }
    const auto logit_of = [&](int id) { return id >= 0 && id < a.vocab_size ? key(id) : kMinusInfinity; };
    const int target = targets[row];
    const float target_logit = logit_of(target);
    const int greater = block_count(a.vocab_size, [&](int id) { return key(id) > target_logit; }, s);
    const Global<int32_t> row_ids = ids + static_cast<int64_t>(row) * (a.top_n + 1);
    const Global<float> row_values = values + static_cast<int64_t>(row) * (a.top_n + 1);
    if (thread_id() == 0) {
      row_ids[0] = target;
      row_values[0] = value_of(target_logit);
      ranks[row] = 1 + greater;
    }
    if (a.top_n > 0) {
      if (a.named) {
        for (int i = thread_id(); i < a.top_n; i += kRowThreads) row_ids[1 + i] = named[static_cast<int64_t>(row) * a.top_n + i];
        __syncthreads();
      } else {
        store_best(a.vocab_size, a.top_n, key, candidates, row_ids + 1, s);
      }
      for (int i = 1 + thread_id(); i <= a.top_n; i += kRowThreads) row_values[i] = value_of(logit_of(row_ids[i]));
    }
    __syncthreads();
  }
}

int64_t sums_bytes(int64_t blocks, int64_t vocab_size) { return round_up(blocks * ceil_div(vocab_size, kSegment) * 8, 256); }

}  // namespace
}  // namespace bao

using namespace bao;

// Bytes of workspace that `logprobs` needs of the stream.
BAO_EXPORT int64_t bao_logprobs_workspace_bytes(int32_t rows, int32_t vocab_size) {
  const int64_t blocks = rows < kMaxBlocks ? rows : kMaxBlocks;
  return sums_bytes(blocks, vocab_size) + blocks * vocab_size * 4;
}

BAO_EXPORT int32_t bao_logprobs(const Stream* stream, const float* logits, int32_t rows, int32_t vocab_size, const int32_t* targets,
                                const int32_t* named, int32_t top_n, int32_t* ids, float* values, int32_t* ranks, int32_t as_logits) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || vocab_size <= 0 || top_n < 0 || top_n > vocab_size) return kBadShape;
  if (rows == 0) return kOk;
  if (!logits || !targets || !ids || !values || !ranks) return kNullPointer;
  if (stream->workspace_bytes < bao_logprobs_workspace_bytes(rows, vocab_size)) return kOutOfMemory;
  const int32_t blocks = rows < kMaxBlocks ? rows : kMaxBlocks;
  auto* sums = static_cast<double*>(stream->workspace);
  auto* candidates = reinterpret_cast<int32_t*>(static_cast<char*>(stream->workspace) + sums_bytes(blocks, vocab_size));
  const LogprobsArgs args{rows, vocab_size, top_n, as_logits, named != nullptr, ceil_div(vocab_size, kSegment)};
  return launched(launch("logprobs", logprobs_kernel, static_cast<unsigned>(blocks), kRowThreads, sizeof(RowScratch), stream->stream,
                         logits, targets, named, ids, values, ranks, sums, candidates, args));
}
