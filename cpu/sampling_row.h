// One row's sampling parameters: SAMPLING_ROW of src/sampling/sampling-row.ts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bao {

// Words [offset, offset + length) of the step's lists pool.
struct ListRef {
  int32_t offset;
  int32_t length;
};

struct SamplingRow {
  int32_t slot;
  int32_t num_prompt_tokens;
  int32_t num_tokens;
  int32_t top_k;
  float temperature;
  float top_p;
  float min_p;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  uint32_t seed_low;
  uint32_t seed_high;
  ListRef masked_ids;
  ListRef allowed_ids;
  ListRef logit_bias;
  ListRef bad_words;
  int32_t bitmask;
  int32_t reserved[3];
};

static_assert(sizeof(SamplingRow) == 96 && offsetof(SamplingRow, masked_ids) == 48 && offsetof(SamplingRow, bitmask) == 80,
              "SAMPLING_ROW of src/sampling/sampling-row.ts");

}  // namespace bao
