/**
 * What the `sample` op needs to know of one row of logits: a struct of 96 bytes, little-endian, the same in C++ (`struct SamplingRow`) and CUDA.
 * List fields are [offset, length] in i32 words of the step's `lists` pool. Order of processing, as in vLLM: grammar bitmask, allowed ids,
 * bad words, min_tokens mask (masked ids), logit bias, penalties, temperature, min_p, top_k, top_p, then the draw.
 *
 * The draw uses Philox4x32-10 with key = seed and counter = num_tokens, so it depends on nothing else.
 */
export const SAMPLING_ROW = {
  /** Row of the token table, or -1. */
  slot: { offset: 0, type: 'i32' },
  numPromptTokens: { offset: 4, type: 'i32' },
  /** Tokens in the table, prompt and output; the sampled token goes to this index. */
  numTokens: { offset: 8, type: 'i32' },
  /** 0: off. */
  topK: { offset: 12, type: 'i32' },
  /** 0 (and anything below 1e-5, as in vLLM): greedy. */
  temperature: { offset: 16, type: 'f32' },
  /** 1: off. */
  topP: { offset: 20, type: 'f32' },
  /** 0: off. */
  minP: { offset: 24, type: 'f32' },
  /** 1: off. Over prompt and output. */
  repetitionPenalty: { offset: 28, type: 'f32' },
  /** 0: off. Over output. */
  presencePenalty: { offset: 32, type: 'f32' },
  /** 0: off. Over output. */
  frequencyPenalty: { offset: 36, type: 'f32' },
  seedLow: { offset: 40, type: 'u32' },
  seedHigh: { offset: 44, type: 'u32' },
  /** Ids that must not be drawn in this step (stop ids before min_tokens). */
  maskedIds: { offset: 48, type: 'list' },
  /** Only these ids may be drawn; length 0: all. */
  allowedIds: { offset: 56, type: 'list' },
  /** Pairs (id, bias as float bits); length counts words. */
  logitBias: { offset: 64, type: 'list' },
  /** Sequences, each as its length followed by its ids; a sequence's last id is masked when the output ends with the ids before it. Length counts words. */
  badWords: { offset: 72, type: 'list' },
  /** Word offset of the row's bitmask (one bit an id, 1: allowed) in `bitmasks`, or -1. */
  bitmask: { offset: 80, type: 'i32' },
} as const;

export const SAMPLING_ROW_BYTES = 96;
