// What happens to a row of logits before a token is drawn: masks, bias, penalties, in the order of src/sampling/sampling-row.ts.
#pragma once

#include "../cpu/sampling_row.h"
#include "row_select.cuh"

namespace bao {

struct RowInputs {
  SamplingRow row;
  Global<const float> logits;
  Global<const int32_t> lists, history;
  Global<const uint32_t> bitmask;
  int vocab_size, num_tokens, num_prompt_tokens;

  __device__ bool in_vocabulary(int id) const { return id >= 0 && id < vocab_size; }
  __device__ int length(const ListRef& list) const { return list.offset < 0 || list.length < 0 ? 0 : list.length; }
  __device__ bool has_penalties() const {
    return row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
  }
};

enum class Masks { kAll, kGrammarAndAllowed };

// x[id] = base(id) where the row allows the token, -infinity elsewhere.
template <class Base>
__device__ void apply_masks(const RowInputs& in, Masks masks, Base base, Global<float> x) {
  const int allowed = in.length(in.row.allowed_ids);
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) x[id] = allowed > 0 ? kMinusInfinity : base(id);
  __syncthreads();
  for (int i = thread_id(); i < allowed; i += kRowThreads) {
    const int id = in.lists[in.row.allowed_ids.offset + i];
    if (in.in_vocabulary(id)) x[id] = base(id);
  }
  __syncthreads();
  if (in.bitmask) {
    for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) {
      if (!(in.bitmask[id / 32] >> (id % 32) & 1u)) x[id] = kMinusInfinity;
    }
  }
  __syncthreads();
  if (masks != Masks::kAll) return;

  const int masked = in.length(in.row.masked_ids);
  for (int i = thread_id(); i < masked; i += kRowThreads) {
    const int id = in.lists[in.row.masked_ids.offset + i];
    if (in.in_vocabulary(id)) x[id] = kMinusInfinity;
  }
  // Lists of words are short: one thread walks them.
  const int words = in.length(in.row.bad_words), outputs = in.num_tokens - in.num_prompt_tokens;
  for (int at = 0; thread_id() == 0 && at < words;) {
    const int64_t word = in.row.bad_words.offset + at;
    const int length = in.lists[word];
    if (length <= 0 || length > words - at - 1) break;
    at += length + 1;
    const int prefix = length - 1, last = in.lists[word + length];
    if (prefix > outputs || !in.in_vocabulary(last)) continue;
    bool equal = true;
    for (int i = 0; i < prefix && equal; i++) equal = in.lists[word + 1 + i] == in.history[in.num_tokens - prefix + i];
    if (equal) x[last] = kMinusInfinity;
  }
  __syncthreads();
}

// One thread, since an id may be named twice.
__device__ inline void apply_bias(const RowInputs& in, Global<float> x) {
  const int words = in.length(in.row.logit_bias);
  for (int i = 0; thread_id() == 0 && i + 1 < words; i += 2) {
    const int id = in.lists[in.row.logit_bias.offset + i];
    const float bias = __uint_as_float(static_cast<uint32_t>(in.lists[in.row.logit_bias.offset + i + 1]));
    if (in.in_vocabulary(id)) x[id] += bias;
  }
  __syncthreads();
}

// counts[id]: how often the token is in the output, and kSeen where it is in prompt or output.
__device__ inline void apply_penalties(const RowInputs& in, Global<float> x, Global<int32_t> counts) {
  constexpr int kSeen = 1 << 30;
  if (!in.has_penalties() || in.num_tokens == 0) return;
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) counts[id] = 0;
  __syncthreads();
  for (int i = thread_id(); i < in.num_tokens; i += kRowThreads) {
    const int id = in.history[i];
    if (!in.in_vocabulary(id)) continue;
    atomicOr(&counts[id], kSeen);
    if (i >= in.num_prompt_tokens) atomicAdd(&counts[id], 1);
  }
  __syncthreads();
  for (int id = thread_id(); id < in.vocab_size; id += kRowThreads) {
    if (!(counts[id] & kSeen)) continue;
    const float count = static_cast<float>(counts[id] & ~kSeen);
    const float repeated = x[id] > 0 ? x[id] / in.row.repetition_penalty : x[id] * in.row.repetition_penalty;
    x[id] = repeated - in.row.frequency_penalty * count - (count > 0 ? in.row.presence_penalty : 0.0f);
  }
  __syncthreads();
}

// x [vocab_size] from in.logits.
__device__ inline void process_logits(const RowInputs& in, Global<float> x, Global<int32_t> counts) {
  apply_masks(in, Masks::kAll, [&](int id) { return in.logits[id]; }, x);
  apply_bias(in, x);
  apply_penalties(in, x, counts);
}

// The token of a row whose masks leave nothing: the best one that fewer masks allow, id 0 where even those allow none. All logits
// count as 0 for the masks, so that a token whose own logit is -infinity can be told from a masked one.
__device__ inline int fallback_token(const RowInputs& in, Global<float> x, RowScratch& s) {
  for (const Masks masks : {Masks::kAll, Masks::kGrammarAndAllowed}) {
    apply_masks(in, masks, [](int) { return 0.0f; }, x);
    const int first = block_best(in.vocab_size, [&](int id) { return x[id]; }, s).index;
    if (first == in.vocab_size) continue;
    const Best best = block_best(in.vocab_size, [&](int id) { return x[id] == 0.0f ? logit_key(in.logits[id]) : kMinusInfinity; }, s);
    return best.index < in.vocab_size ? best.index : first;
  }
  return 0;
}

}  // namespace bao
