// The op `sample`: one token per row of logits. A row is one chunk, done by one thread from its first to its last step, so its
// result depends on nothing but itself.

#include <algorithm>
#include <cmath>

#include "abi.h"
#include "kernels.h"
#include "logit_processors.h"
#include "philox.h"
#include "row_select.h"
#include "stream.h"

namespace bao {

namespace {

// vLLM's _SAMPLING_EPS: below it a temperature means greedy.
constexpr float kGreedyTemperature = 1e-5f;

struct SampleArgs {
  float* logits;
  int64_t vocab_size;
  const SamplingRow* params;
  const int32_t* lists;
  const uint32_t* bitmasks;
  int32_t* token_table;
  int64_t ld_table;
  int32_t* sampled;
  int32_t write_processed;
  const RowKernels* kernels;
};

struct SampleScratch {
  float* processed;
  float* work;
  float* weights;
  int32_t* ids;
  float* block_max;
  double* block_sums;

  SampleScratch(void* base, int64_t vocab_size) {
    Arena arena(base);
    const int64_t blocks = ceil_div(vocab_size, kRowBlock);
    processed = arena.take<float>(vocab_size);
    work = arena.take<float>(vocab_size);
    weights = arena.take<float>(vocab_size);
    ids = arena.take<int32_t>(vocab_size);
    block_max = arena.take<float>(blocks);
    block_sums = arena.take<double>(blocks);
  }

  static size_t bytes(int64_t vocab_size) {
    const int64_t blocks = ceil_div(vocab_size, kRowBlock);
    return 4 * Arena::bytes<float>(vocab_size) + Arena::bytes<float>(blocks) + Arena::bytes<double>(blocks);
  }
};

// Tokens that may be drawn, in ascending order of id. `ids` is nullptr while these are all tokens.
struct Candidates {
  int64_t n;
  const int32_t* ids;
  int32_t id(int64_t i) const { return ids ? ids[i] : static_cast<int32_t>(i); }
};

bool is_greedy(const SamplingRow& row) { return !(row.temperature >= kGreedyTemperature); }

// The lowest logit that min_p and top_k let through. Tokens equal to the k-th best stay, as in vLLM.
float cutoff_of(const SamplingRow& row, const LogitsView& x, float best, float* work) {
  float cutoff = kMinusInfinity;
  if (row.min_p > 0) cutoff = best + std::log(std::min(row.min_p, 1.0f)) * row.temperature;
  if (row.top_k > 0 && row.top_k < x.n) cutoff = std::max(cutoff, kth_greatest(x, row.top_k, work));
  // Rounding must not shut out the best one.
  return std::min(cutoff, best);
}

// Shrinks the candidates, whose weights are in s.weights, to the smallest set whose probability reaches top_p.
void keep_top_p(const SampleArgs& a, float top_p, const SampleScratch& s, Candidates& candidates) {
  const double target = std::max(static_cast<double>(top_p) * sum_of_blocks(s.block_sums, candidates.n), 0x1p-1022);
  Nucleus nucleus = find_nucleus(*a.kernels, s.weights, candidates.n, target, s.work, s.block_sums);
  int64_t kept = 0;
  for (int64_t i = 0; i < candidates.n; i++) {
    const float weight = s.weights[i];
    s.ids[kept] = candidates.id(i);
    s.weights[kept] = weight;
    // Without a branch that the processor can't foretell.
    kept += (weight > nucleus.threshold) | (weight == nucleus.threshold && nucleus.ties-- > 0);
  }
  candidates = {kept, s.ids};
  a.kernels->sum_above(s.weights, kept, 0.0f, s.block_sums);
}

int32_t draw_token(const SampleArgs& a, const SamplingRow& row, const LogitsView& x, float best, const SampleScratch& s,
                   Candidates& candidates) {
  const float* values = x.x;
  const float cutoff = cutoff_of(row, x, best, s.work);
  if (cutoff > kMinusInfinity) {
    candidates = {compact_at_least(x, cutoff, s.ids, s.work), s.ids};
    values = s.work;
  }
  a.kernels->exp_weights(values, candidates.n, best, 1.0f / row.temperature, s.weights, s.block_sums);
  if (row.top_p < 1.0f) keep_top_p(a, row.top_p, s, candidates);
  const PhiloxCounter block = philox4x32({static_cast<uint32_t>(row.num_tokens), 0, 0, 0}, {row.seed_low, row.seed_high});
  return candidates.id(draw(s.weights, candidates.n, s.block_sums, philox_uniform(block)));
}

// What the token was drawn from, in place of the raw logits: divided by the temperature, -infinity for what was no candidate.
void write_processed(const SamplingRow& row, const float* x, const Candidates& candidates, const SampleScratch& s, float* out,
                     int64_t vocab_size) {
  const float scale = is_greedy(row) ? 1.0f : 1.0f / row.temperature;
  for (int64_t i = 0; i < candidates.n; i++) s.work[i] = x[candidates.id(i)] * scale;
  std::fill_n(out, vocab_size, kMinusInfinity);
  for (int64_t i = 0; i < candidates.n; i++) out[candidates.id(i)] = s.work[i];
}

RowInputs inputs_of(const SampleArgs& a, const SamplingRow& row, const float* logits) {
  RowInputs in{};
  in.row = &row;
  in.logits = logits;
  in.vocab_size = a.vocab_size;
  in.lists = a.lists;
  in.bitmask = a.bitmasks && row.bitmask >= 0 ? a.bitmasks + row.bitmask : nullptr;
  if (row.slot >= 0) {
    in.history = a.token_table + row.slot * a.ld_table;
    in.num_tokens = std::clamp<int64_t>(row.num_tokens, 0, a.ld_table);
    in.num_prompt_tokens = std::clamp<int64_t>(row.num_prompt_tokens, 0, in.num_tokens);
  }
  return in;
}

void sample_row(const SampleArgs& a, const ChunkContext& c) {
  const SamplingRow& row = a.params[c.chunk];
  float* logits = a.logits + c.chunk * a.vocab_size;
  const SampleScratch s(c.scratch, a.vocab_size);
  const RowInputs in = inputs_of(a, row, logits);

  LogitsView x{logits, a.vocab_size, s.block_max};
  if (!is_unprocessed(in)) {
    process_logits(in, s.processed, s.ids);
    x.x = s.processed;
  }
  a.kernels->block_max(x.x, x.n, s.block_max);
  const float best = max_of(x);
  Candidates candidates{a.vocab_size, nullptr};
  int32_t token;
  if (!(best > kMinusInfinity)) {
    token = fallback_token(in, s.weights, s.work);
  } else if (is_greedy(row) || std::isinf(best)) {
    token = index_of(x, best);
  } else {
    token = draw_token(a, row, x, best, s, candidates);
  }
  a.sampled[c.chunk] = token;
  if (row.slot >= 0 && row.num_tokens >= 0 && row.num_tokens < a.ld_table) {
    a.token_table[row.slot * a.ld_table + row.num_tokens] = token;
  }
  if (a.write_processed) write_processed(row, x.x, candidates, s, logits, a.vocab_size);
}

}  // namespace

}  // namespace bao

using namespace bao;

BAO_EXPORT int32_t bao_sample(void* stream, float* logits, int32_t rows, int32_t vocab_size, const void* params,
                              const int32_t* lists, const void* bitmasks, int32_t* token_table, int64_t ld_table,
                              int32_t* sampled, int32_t write_processed) {
  Stream* s = Stream::from(stream);
  if (!s) return kStreamClosed;
  if (rows < 0 || vocab_size <= 0 || ld_table < 0) return kBadShape;
  if (!logits || !params || !lists || !token_table || !sampled) return kNullPointer;
  if (const int32_t error = s->reserve(SampleScratch::bytes(vocab_size), 0)) return error;
  const SampleArgs args{logits,      vocab_size, static_cast<const SamplingRow*>(params),
                        lists,       static_cast<const uint32_t*>(bitmasks),
                        token_table, ld_table,   sampled,
                        write_processed, s->kernels().rows};
  return s->enqueue(sample_row, args, rows);
}
