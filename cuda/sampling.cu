// The op `sample`: one token per row of logits. A block works on one row at a time, so that a row depends on nothing but itself.
#include "logit_processors.cuh"
#include "stream.h"

namespace bao {
namespace {

// vLLM's _SAMPLING_EPS: below it a temperature means greedy.
constexpr float kGreedyTemperature = 1e-5f;
// Bounds that the search for top_p's least weight tries at once.
constexpr int kPivots = 7;
// Rows that are worked on at once; each needs scratch of the vocabulary's size.
constexpr int kMaxBlocks = 64;

struct SampleArgs {
  int32_t rows, vocab_size, write_processed;
  int64_t ld_table;
  // Of the workspace, in elements for each block.
  int64_t segments;
};

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011), its first two words as a uniform number in [0, 1).
__device__ inline double philox_uniform(uint32_t counter, uint32_t key0, uint32_t key1) {
  uint32_t c[4] = {counter, 0, 0, 0};
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(p1),
                              static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(p0)};
    for (int i = 0; i < 4; i++) c[i] = next[i];
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  const uint64_t bits = (static_cast<uint64_t>(c[0]) << 32) | c[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The lowest logit that min_p and top_k let through. Tokens equal to the k-th best stay, as in vLLM.
__device__ float cutoff_of(const RowInputs& in, Global<const float> x, float best, RowScratch& s) {
  const SamplingRow& row = in.row;
  float cutoff = kMinusInfinity;
  if (row.min_p > 0) cutoff = best + logf(fminf(row.min_p, 1.0f)) * row.temperature;
  if (row.top_k > 0 && row.top_k < in.vocab_size) {
    cutoff = fmaxf(cutoff, kth_greatest(in.vocab_size, row.top_k, [&](int id) { return logit_key(x[id]); }, s));
  }
  // Rounding must not shut out the best one.
  return fminf(cutoff, best);
}

// Zeroes the weights outside of the smallest set whose sum reaches top_p of `total`; of equal weights the lower ids stay. The least
// weight of the set is found by search in its bits: for positive floats they order as the values do.
__device__ void keep_top_p(const RowInputs& in, Global<float> weights, double total, Global<double> sums, RowScratch& s) {
  const double target = fmax(static_cast<double>(in.row.top_p) * total, 0x1p-1022);
  uint32_t low = 0, high = __float_as_uint(1.0f) + 1;
  double above = 0;
  // The weights from `low` on reach the target (or nothing does), those from `high` on, which sum to `above`, do not. The range is cut into
  // kPivots + 1 at a time: reading the weights is what takes the time.
  while (high - low > 1) {
    const uint32_t step = (high - low + kPivots) / (kPivots + 1), first = low + step, end = high;
    double masses[kPivots];
    block_sums<kPivots>(
        in.vocab_size,
        [&](int id, float(&parts)[kPivots]) {
          const float weight = weights[id];
#pragma unroll
          for (int p = 0; p < kPivots; p++) parts[p] += __float_as_uint(weight) >= first + p * step ? weight : 0.0f;
        },
        sums, s, masses);
    bool reached = true;
#pragma unroll
    for (int p = 0; p < kPivots; p++) {
      const uint32_t pivot = first + p * step;
      if (!reached || pivot >= end) continue;
      reached = masses[p] >= target;
      if (reached) {
        low = pivot;
      } else {
        high = pivot;
        above = masses[p];
      }
    }
  }
  if (low == 0) return;
  const float threshold = __uint_as_float(low);
  const int ties = block_count(in.vocab_size, [&](int id) { return weights[id] == threshold; }, s);
  int needed = static_cast<int>(fmin(ceil((target - above) / threshold), static_cast<double>(ties)));
  if (needed < 1) needed = 1;
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) {
    if (weights[id] < threshold) weights[id] = 0.0f;
  }
  __syncthreads();
  if (needed == ties || thread_id() >= 32) return;
  // Rare: ids in ascending order, a warp's width at a time.
  int seen = 0;
  for (int base = 0; base < in.vocab_size; base += 32) {
    const int id = base + thread_id();
    const bool tie = id < in.vocab_size && weights[id] == threshold;
    const uint32_t votes = __ballot_sync(kFullWarp, tie);
    const int before = __popc(votes & ((1u << thread_id()) - 1u));
    if (tie && seen + before >= needed) weights[id] = 0.0f;
    seen += __popc(votes);
  }
}

// Index i with probability weights[i] / sum, by inversion of the cumulative sum. By one warp; all its lanes get the result.
__device__ int draw(const RowInputs& in, Global<const float> weights, double total, Global<const double> sums, double uniform) {
  const int segments = (in.vocab_size + kSegment - 1) / kSegment, lane = thread_id() % 32;
  const double target = uniform * total;
  double cumulative = 0;
  int chosen_segment = 0;
  for (int segment = 0; segment < segments; segment++) {
    const double sum = sums[segment];
    if (!(sum > 0)) continue;
    chosen_segment = segment;
    if (target < cumulative + sum) break;
    cumulative += sum;
  }
  // A segment's sum and its running sum round differently: past its end means its last possible index.
  int chosen = chosen_segment * kSegment;
  for (int base = chosen; base < in.vocab_size && base < (chosen_segment + 1) * kSegment; base += 32) {
    const float weight = base + lane < in.vocab_size ? weights[base + lane] : 0.0f;
    double running = weight;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const double other = __shfl_up_sync(kFullWarp, running, static_cast<unsigned>(lanes));
      if (lane >= lanes) running += other;
    }
    const uint32_t possible = __ballot_sync(kFullWarp, weight > 0);
    const uint32_t reached = __ballot_sync(kFullWarp, weight > 0 && target < cumulative + running);
    if (reached != 0) return base + __ffs(reached) - 1;
    for (int bit = 0; bit < 32; bit++) {
      if (possible >> bit & 1u) chosen = base + bit;
    }
    cumulative += __shfl_sync(kFullWarp, running, 31);
  }
  return chosen;
}

// Draws the row's token. Afterwards weights[id] > 0, or x[id] >= the result's cutoff where top_p is off, tells what could be drawn.
struct Drawn {
  int token;
  float cutoff;
  bool nucleus;
};

__device__ Drawn draw_token(const RowInputs& in, Global<const float> x, float best, Global<float> weights, Global<double> sums,
                            RowScratch& s) {
  const SamplingRow& row = in.row;
  const float cutoff = cutoff_of(in, x, best, s), scale = 1.0f / row.temperature;
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) {
    const float logit = logit_key(x[id]);
    weights[id] = logit >= cutoff ? expf((logit - best) * scale) : 0.0f;
  }
  __syncthreads();
  const auto weight = [&](int id) { return weights[id]; };
  double total = block_sum(in.vocab_size, weight, sums, s);
  const bool nucleus = row.top_p < 1.0f;
  if (nucleus) {
    keep_top_p(in, weights, total, sums, s);
    __syncthreads();
    total = block_sum(in.vocab_size, weight, sums, s);
  }
  if (thread_id() < 32) {
    const double uniform = philox_uniform(static_cast<uint32_t>(row.num_tokens), row.seed_low, row.seed_high);
    const int token = draw(in, weights, total, sums, uniform);
    if (thread_id() == 0) s.counter = token;
  }
  __syncthreads();
  return {s.counter, cutoff, nucleus};
}

__device__ RowInputs inputs_of(const SampleArgs& a, const SamplingRow& row, Global<const float> logits, Global<const int32_t> lists,
                               Global<const uint32_t> bitmasks, Global<const int32_t> token_table) {
  RowInputs in{row, logits, lists, {}, {}, a.vocab_size, 0, 0};
  if (bitmasks && row.bitmask >= 0) in.bitmask = bitmasks + row.bitmask;
  if (row.slot >= 0) {
    in.history = token_table + row.slot * a.ld_table;
    const int64_t limit = row.num_tokens < a.ld_table ? row.num_tokens : a.ld_table;
    in.num_tokens = limit > 0 ? static_cast<int>(limit) : 0;
    const int prompt = row.num_prompt_tokens < in.num_tokens ? row.num_prompt_tokens : in.num_tokens;
    in.num_prompt_tokens = prompt > 0 ? prompt : 0;
  }
  return in;
}

// `logits` of a row whose token was chosen becomes what it was chosen from.
__device__ void store_processed(const RowInputs& in, Global<const float> x, Global<const float> weights, const Drawn* drawn,
                                Global<float> logits) {
  const float scale = drawn ? 1.0f / in.row.temperature : 1.0f;
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) {
    const float logit = x[id];
    const bool candidate = !drawn || (drawn->nucleus ? weights[id] > 0 : logit_key(logit) >= drawn->cutoff);
    logits[id] = candidate ? logit * scale : kMinusInfinity;
  }
}

__global__ void __launch_bounds__(kRowThreads, 1)
    sample_kernel(Global<float> logits, Global<const SamplingRow> params, Global<const int32_t> lists, Global<const uint32_t> bitmasks,
                  Global<int32_t> token_table, Global<int32_t> sampled, Global<double> sums, Global<float> scratch, SampleArgs a) {
  await_previous_kernel();
  RowScratch& s = *shared_memory<RowScratch>();
  sums = sums + static_cast<int64_t>(blockIdx.x) * kPivots * a.segments;
  const Global<float> x = scratch + static_cast<int64_t>(blockIdx.x) * 3 * a.vocab_size;
  const Global<float> weights = x + a.vocab_size;
  const Global<int32_t> counts = cast<int32_t>(weights + a.vocab_size);
  for (int row = static_cast<int>(blockIdx.x); row < a.rows; row += static_cast<int>(gridDim.x)) {
    const Global<float> row_logits = logits + static_cast<int64_t>(row) * a.vocab_size;
    const RowInputs in = inputs_of(a, params[row], row_logits, lists, bitmasks, token_table);
    process_logits(in, x, counts);
    const Best best = block_best(a.vocab_size, [&](int id) { return logit_key(x[id]); }, s);
    Drawn drawn{best.index, kMinusInfinity, false};
    const bool greedy = !(in.row.temperature >= kGreedyTemperature);
    const bool nothing = best.index == a.vocab_size, certain = greedy || best.value == INFINITY;
    if (!nothing && !certain) drawn = draw_token(in, x, best.value, weights, sums, s);
    if (nothing) drawn.token = fallback_token(in, weights, s);
    if (thread_id() == 0) {
      sampled[row] = drawn.token;
      const SamplingRow& p = in.row;
      if (p.slot >= 0 && p.num_tokens >= 0 && p.num_tokens < a.ld_table) token_table[p.slot * a.ld_table + p.num_tokens] = drawn.token;
    }
    __syncthreads();
    if (a.write_processed) store_processed(in, x, weights, greedy ? nullptr : &drawn, row_logits);
    __syncthreads();
  }
}

int64_t sums_bytes(int64_t blocks, int64_t vocab_size) {
  return round_up(blocks * kPivots * ceil_div(vocab_size, kSegment) * 8, 256);
}

}  // namespace
}  // namespace bao

using namespace bao;

// Bytes of workspace that `sample` needs of the stream.
BAO_EXPORT int64_t bao_sample_workspace_bytes(int32_t rows, int32_t vocab_size) {
  const int64_t blocks = rows < kMaxBlocks ? rows : kMaxBlocks;
  return sums_bytes(blocks, vocab_size) + blocks * 3 * vocab_size * 4;
}

BAO_EXPORT int32_t bao_sample(const Stream* stream, float* logits, int32_t rows, int32_t vocab_size, const void* params,
                              const int32_t* lists, const void* bitmasks, int32_t* token_table, int64_t ld_table, int32_t* sampled,
                              int32_t write_processed) {
  if (!stream) return kStreamClosed;
  if (rows < 0 || vocab_size <= 0 || ld_table < 0) return kBadShape;
  if (rows == 0) return kOk;
  if (!logits || !params || !lists || !token_table || !sampled) return kNullPointer;
  if (stream->workspace_bytes < bao_sample_workspace_bytes(rows, vocab_size)) return kOutOfMemory;
  const int32_t blocks = rows < kMaxBlocks ? rows : kMaxBlocks;
  auto* sums = static_cast<double*>(stream->workspace);
  auto* scratch = reinterpret_cast<float*>(static_cast<char*>(stream->workspace) + sums_bytes(blocks, vocab_size));
  const SampleArgs args{rows, vocab_size, write_processed, ld_table, ceil_div(vocab_size, kSegment)};
  return launched(launch("sample", sample_kernel, static_cast<unsigned>(blocks), kRowThreads, sizeof(RowScratch), stream->stream, logits,
                         static_cast<const SamplingRow*>(params), lists, static_cast<const uint32_t*>(bitmasks), token_table, sampled,
                         sums, scratch, args));
}
