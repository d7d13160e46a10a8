// The op `logprobs`: log probabilities of chosen tokens and of the best ones. A row is one chunk.

#include <algorithm>
#include <cmath>

#include "abi.h"
#include "kernels.h"
#include "row_select.h"
#include "stream.h"

namespace bao {

namespace {

struct LogprobsArgs {
  const float* logits;
  int64_t vocab_size;
  const int32_t* targets;
  const int32_t* named;
  int64_t top_n;
  int32_t* ids;
  float* values;
  int32_t* ranks;
  int32_t as_logits;
  const RowKernels* kernels;
};

struct LogprobsScratch {
  float* values;
  int32_t* ids;
  float* block_max;
  double* block_sums;

  LogprobsScratch(void* base, int64_t vocab_size) {
    Arena arena(base);
    const int64_t blocks = ceil_div(vocab_size, kRowBlock);
    values = arena.take<float>(vocab_size);
    ids = arena.take<int32_t>(vocab_size);
    block_max = arena.take<float>(blocks);
    block_sums = arena.take<double>(blocks);
  }

  static size_t bytes(int64_t vocab_size) {
    const int64_t blocks = ceil_div(vocab_size, kRowBlock);
    return 2 * Arena::bytes<float>(vocab_size) + Arena::bytes<float>(blocks) + Arena::bytes<double>(blocks);
  }
};

// log softmax of one logit: (x - max) - log(sum of exp(x - max)), the sum in float32 within a block and in double over blocks.
class LogSoftmax {
 public:
  LogSoftmax(const LogprobsArgs& a, const LogitsView& x, double* block_sums) : as_logits_(a.as_logits != 0), max_(max_of(x)) {
    if (as_logits_ || std::isinf(max_)) return;
    a.kernels->exp_weights(x.x, x.n, max_, 1.0f, nullptr, block_sums);
    log_sum_ = std::log(sum_of_blocks(block_sums, x.n));
  }

  float operator()(float logit) const {
    if (as_logits_) return logit;
    // An infinite logit has all the probability; where all are -infinity nothing has any.
    if (std::isinf(max_)) return max_ > 0 && logit == max_ ? 0.0f : kMinusInfinity;
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(max_) - log_sum_);
  }

 private:
  bool as_logits_;
  float max_;
  double log_sum_ = 0;
};

// The n best ids, descending, ties by lower id, into ids[0..n).
void best_ids(const LogitsView& x, int64_t n, const LogprobsScratch& s, int32_t* ids) {
  const float cutoff = n < x.n ? kth_greatest(x, n, s.values) : kMinusInfinity;
  const int64_t count = compact_at_least(x, cutoff, s.ids, s.values);
  const float* logits = x.x;
  std::partial_sort(s.ids, s.ids + n, s.ids + count, [logits](int32_t a, int32_t b) {
    const float left = logit_key(logits[a]), right = logit_key(logits[b]);
    return left != right ? left > right : a < b;
  });
  std::copy_n(s.ids, n, ids);
}

void logprobs_row(const LogprobsArgs& a, const ChunkContext& c) {
  const LogprobsScratch s(c.scratch, a.vocab_size);
  const LogitsView x{a.logits + c.chunk * a.vocab_size, a.vocab_size, s.block_max};
  a.kernels->block_max(x.x, x.n, s.block_max);
  const LogSoftmax value_of(a, x, s.block_sums);

  int32_t* ids = a.ids + c.chunk * (a.top_n + 1);
  float* values = a.values + c.chunk * (a.top_n + 1);
  const auto logit_of = [&](int32_t id) { return id >= 0 && id < a.vocab_size ? logit_key(x.x[id]) : kMinusInfinity; };
  const int32_t target = a.targets[c.chunk];
  const float target_logit = logit_of(target);
  ids[0] = target;
  values[0] = value_of(target_logit);
  a.ranks[c.chunk] = static_cast<int32_t>(1 + a.kernels->count_above(x.x, x.n, target_logit));
  if (a.top_n == 0) return;
  if (a.named) {
    std::copy_n(a.named + c.chunk * a.top_n, a.top_n, ids + 1);
  } else {
    best_ids(x, a.top_n, s, ids + 1);
  }
  for (int64_t i = 1; i <= a.top_n; i++) values[i] = value_of(logit_of(ids[i]));
}

}  // namespace

}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_logprobs(void* stream, const float* logits, int32_t rows, int32_t vocab_size, const int32_t* targets,
                                const int32_t* named, int32_t top_n, int32_t* ids, float* values, int32_t* ranks, int32_t as_logits) {
  Stream* s = Stream::from(stream);
  if (!s) return kStreamClosed;
  if (rows < 0 || vocab_size <= 0 || top_n < 0 || top_n > vocab_size) return kBadShape;
  if (!logits || !targets || !ids || !values || !ranks) return kNullPointer;
  if (const int32_t error = s->reserve(LogprobsScratch::bytes(vocab_size), 0)) return error;
  const LogprobsArgs args{logits, vocab_size, targets, named, top_n, ids, values, ranks, as_logits, s->kernels().rows};
  return s->enqueue(logprobs_row, args, rows);
}
