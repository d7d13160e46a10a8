#include "logit_processors.h"

#include <algorithm>
#include <cstring>

#include "row_select.h"

namespace bao {

namespace {

struct IdSpan {
  const int32_t* data;
  int64_t size;
};

IdSpan span_of(const RowInputs& in, const ListRef& list) {
  if (list.offset < 0 || list.length <= 0) return {nullptr, 0};
  return {in.lists + list.offset, list.length};
}

bool in_vocabulary(const RowInputs& in, int32_t id) { return id >= 0 && id < in.vocab_size; }

bool has_penalties(const SamplingRow& row) {
  return row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}

void apply_bitmask(const RowInputs& in, float* x) {
  if (!in.bitmask) return;
  for (int64_t begin = 0; begin < in.vocab_size; begin += 32) {
    const uint32_t word = in.bitmask[begin / 32];
    if (word == 0xffffffffu) continue;
    const int64_t count = std::min<int64_t>(32, in.vocab_size - begin);
    for (int64_t bit = 0; bit < count; bit++) {
      if (!(word >> bit & 1u)) x[begin + bit] = kMinusInfinity;
    }
  }
}

// Starts from in.logits again, so it must come before the other masks.
void apply_allowed(const RowInputs& in, float* x) {
  const IdSpan allowed = span_of(in, in.row->allowed_ids);
  if (allowed.size == 0) return;
  std::fill_n(x, in.vocab_size, kMinusInfinity);
  for (int64_t i = 0; i < allowed.size; i++) {
    if (in_vocabulary(in, allowed.data[i])) x[allowed.data[i]] = in.logits[allowed.data[i]];
  }
}

void apply_bad_words(const RowInputs& in, float* x) {
  const IdSpan words = span_of(in, in.row->bad_words);
  const int64_t num_output_tokens = in.num_tokens - in.num_prompt_tokens;
  for (int64_t at = 0; at < words.size;) {
    const int64_t length = words.data[at];
    if (length <= 0 || length > words.size - at - 1) return;
    const int32_t* ids = words.data + at + 1;
    at += length + 1;
    const int64_t prefix = length - 1;
    if (prefix > num_output_tokens || !in_vocabulary(in, ids[prefix])) continue;
    const int32_t* tail = in.history + (in.num_tokens - prefix);
    if (std::equal(ids, ids + prefix, tail)) x[ids[prefix]] = kMinusInfinity;
  }
}

void apply_masked_ids(const RowInputs& in, float* x) {
  const IdSpan masked = span_of(in, in.row->masked_ids);
  for (int64_t i = 0; i < masked.size; i++) {
    if (in_vocabulary(in, masked.data[i])) x[masked.data[i]] = kMinusInfinity;
  }
}

void apply_bias(const RowInputs& in, float* x) {
  const IdSpan pairs = span_of(in, in.row->logit_bias);
  for (int64_t i = 0; i + 1 < pairs.size; i += 2) {
    float bias;
    std::memcpy(&bias, pairs.data + i + 1, 4);
    if (in_vocabulary(in, pairs.data[i])) x[pairs.data[i]] += bias;
  }
}

// Each distinct token of the history once: counts[id] is its number in the output while it waits, -1 when it is done.
void apply_penalties(const RowInputs& in, float* x, int32_t* counts) {
  const SamplingRow& row = *in.row;
  if (!has_penalties(row) || in.num_tokens == 0) return;
  std::fill_n(counts, in.vocab_size, 0);
  for (int64_t i = in.num_prompt_tokens; i < in.num_tokens; i++) {
    if (in_vocabulary(in, in.history[i])) counts[in.history[i]]++;
  }
  for (int64_t i = 0; i < in.num_tokens; i++) {
    const int32_t id = in.history[i];
    if (!in_vocabulary(in, id) || counts[id] < 0) continue;
    const float repeated = x[id] > 0 ? x[id] / row.repetition_penalty : x[id] * row.repetition_penalty;
    const float count = static_cast<float>(counts[id]);
    x[id] = repeated - row.frequency_penalty * count - (count > 0 ? row.presence_penalty : 0.0f);
    counts[id] = -1;
  }
}

// Hard constraints that a row may be held to; fewer where the stricter ones leave nothing.
enum class Masks { kAll, kGrammarAndAllowed };

// x, a copy of in.logits, becomes -infinity where a token is not allowed.
void apply_masks(const RowInputs& in, Masks masks, float* x) {
  apply_allowed(in, x);
  apply_bitmask(in, x);
  if (masks != Masks::kAll) return;
  apply_bad_words(in, x);
  apply_masked_ids(in, x);
}

}  // namespace

bool is_unprocessed(const RowInputs& in) {
  const SamplingRow& row = *in.row;
  return !in.bitmask && row.allowed_ids.length <= 0 && row.bad_words.length <= 0 && row.masked_ids.length <= 0 &&
         row.logit_bias.length <= 0 && !has_penalties(row);
}

void process_logits(const RowInputs& in, float* x, int32_t* counts) {
  std::copy_n(in.logits, in.vocab_size, x);
  apply_masks(in, Masks::kAll, x);
  apply_bias(in, x);
  apply_penalties(in, x, counts);
}

int32_t fallback_token(const RowInputs& in, float* x, float* zeros) {
  // All logits count as 0, so that a token whose own logit is -infinity can be told from a masked one.
  std::fill_n(zeros, in.vocab_size, 0.0f);
  RowInputs open = in;
  open.logits = zeros;
  int32_t best = -1;
  for (const Masks masks : {Masks::kAll, Masks::kGrammarAndAllowed}) {
    std::copy_n(zeros, in.vocab_size, x);
    apply_masks(open, masks, x);
    for (int64_t id = 0; id < in.vocab_size; id++) {
      if (x[id] == kMinusInfinity) continue;
      if (best < 0 || logit_key(in.logits[id]) > logit_key(in.logits[best])) best = static_cast<int32_t>(id);
    }
    if (best >= 0) return best;
  }
  return 0;
}

}  // namespace bao
