// What changes logits before a token is drawn, in vLLM's order: grammar mask, allowed ids, bad words, ids masked until
// min_tokens, logit bias, penalties.
#pragma once

#include <cstdint>

#include "sampling_row.h"

namespace bao {

// A row's parameters with everything that they point to.
struct RowInputs {
  const SamplingRow* row;
  const float* logits;
  int64_t vocab_size;
  const int32_t* lists;
  // nullptr without a grammar.
  const uint32_t* bitmask;
  // Tokens so far: prompt, then output.
  const int32_t* history;
  int64_t num_prompt_tokens;
  int64_t num_tokens;
};

// True if processing would leave the logits as they are.
bool is_unprocessed(const RowInputs& in);

// The whole chain: x becomes the processed copy of in.logits. counts is scratch of vocab_size.
void process_logits(const RowInputs& in, float* x, int32_t* counts);

// A token for a row whose processed logits are all -infinity: the best of the raw logits under the strictest masks that leave
// any token at all. x and zeros are scratch of vocab_size.
int32_t fallback_token(const RowInputs& in, float* x, float* zeros);

}  // namespace bao
