import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { describedAs, MULTIMODAL, withoutEffect } from './field-metadata.ts';
import {
  anyObject,
  boolean,
  int64,
  integer,
  integerBetween,
  integers,
  list,
  literal,
  number,
  numberMap,
  string,
  stringOrStrings,
} from './fields.ts';

/** OpenAI's bound, and vLLM's (VLLM_MAX_STOP_STRINGS): every stop string is looked for at every token. */
const MAX_STOP_STRINGS = 4;

export const stopStrings = v.pipe(
  stringOrStrings,
  v.check(
    (stop) => typeof stop === 'string' || stop.length <= MAX_STOP_STRINGS,
    `too_long: List should have at most ${MAX_STOP_STRINGS} items after validation`,
  ),
);

/** What /v1/chat/completions and /v1/completions have in common. Types and which of them may be null are those of vLLM's description. */
export const generationFields = {
  model: v.nullish(string),
  user: withoutEffect(v.nullish(string), "it is about the client's own users"),
  stream: v.nullish(boolean),
  stream_options: v.nullish(
    v.object(
      { include_usage: v.nullish(boolean), continuous_usage_stats: v.nullish(boolean) },
      'model_attributes_type: Input should be a valid dictionary or object to extract fields from',
    ),
  ),
  stream_interval: v.nullish(integerBetween(1)),

  temperature: v.nullish(number),
  top_p: v.nullish(number),
  top_k: v.nullish(integer),
  min_p: v.nullish(number),
  repetition_penalty: v.nullish(number),
  presence_penalty: v.nullish(number),
  frequency_penalty: v.nullish(number),
  seed: v.nullish(int64),
  logit_bias: v.nullish(numberMap),
  allowed_token_ids: v.nullish(integers),
  bad_words: v.optional(list(string)),
  max_tokens: v.nullish(integer),
  min_tokens: v.optional(integer),
  stop: v.nullish(stopStrings),
  stop_token_ids: v.nullish(integers),
  ignore_eos: v.optional(boolean),
  include_stop_str_in_output: v.optional(boolean),
  skip_special_tokens: v.optional(boolean),
  spaces_between_special_tokens: v.optional(boolean),
  prompt_logprobs: v.nullish(integer),
  return_tokens_as_token_ids: v.nullish(boolean),
  return_token_ids: v.nullish(boolean),

  truncate_prompt_tokens: v.nullish(integerBetween(-1)),
  truncation_side: v.nullish(literal('left', 'right')),
  priority: v.optional(int64),
  request_id: v.optional(string),
  session_id: withoutEffect(v.nullish(string), 'cached prefixes are found by what is in them'),
  cache_salt: v.nullish(v.pipe(v.unknown(), describedAs<unknown>({ type: 'string' }))),

  /** Only where they ask for what is not there are the following refused, see unsupported-fields.ts. */
  use_beam_search: v.optional(boolean),
  length_penalty: v.optional(number),
  watermarking: v.nullish(boolean),
  response_format: v.nullish(anyObject),
  structured_outputs: v.nullish(anyObject),
  logprob_token_ids: v.nullish(integers),
  thinking_token_budget: v.nullish(integer),
  repetition_detection: v.nullish(
    v.object(
      {
        max_pattern_size: v.optional(integer),
        min_pattern_size: v.optional(integer),
        min_count: v.optional(integer),
      },
      'dataclass_type: Input should be a dictionary or an instance of RepetitionDetectionParams',
    ),
  ),
  kv_transfer_params: v.nullish(anyObject),
  ec_transfer_params: v.nullish(anyObject),
  vllm_xargs: v.nullish(anyObject),

  routed_experts_prompt_start: withoutEffect(v.optional(integerBetween(0)), 'routed experts are not returned'),
  return_token_offsets: withoutEffect(v.nullish(boolean), "it is about vLLM's render routes"),
  mm_payload: withoutEffect(v.optional(literal('tensors', 'none')), MULTIMODAL),
  return_mm_kwargs: withoutEffect(v.nullish(boolean), MULTIMODAL),
};

const generationSchema = v.object(generationFields);
export type GenerationFields = v.InferOutput<typeof generationSchema>;

/**
 * Rules between fields that both endpoints have.
 *
 * @throws ValidationError
 */
export function checkGenerationFields(request: GenerationFields): void {
  if (request.stream_options != null && !request.stream) {
    throw new ValidationError(
      'Stream options can only be defined when `stream=True`. (parameter=stream_options)',
      'stream_options',
    );
  }
  const { cache_salt: salt, prompt_logprobs: promptLogprobs } = request;
  if (salt != null && (typeof salt !== 'string' || salt === '')) {
    throw new ValidationError(
      "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)",
      'cache_salt',
    );
  }
  if (promptLogprobs == null) return;
  if (request.stream && (promptLogprobs > 0 || promptLogprobs === -1)) {
    throw new ValidationError(
      '`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)',
      'prompt_logprobs',
    );
  }
  checkLogprobsCount('prompt_logprobs', promptLogprobs);
}

/**
 * `logprob_token_ids` say which log probabilities the answer has, not that it has some.
 *
 * @param asked whether `logprobs` asks for them
 * @param value what `logprobs` should be
 * @throws ValidationError
 */
export function checkLogprobTokenIds(request: GenerationFields, asked: boolean, value: string): void {
  const field = 'logprob_token_ids';
  const fail = (sentence: string) => {
    throw new ValidationError(`${sentence} (parameter=${field})`, field);
  };
  const ids = request[field] ?? null;
  if (ids === null) return;
  if (ids.length === 0) fail(`\`${field}\` must not be an empty list.`);
  if (request.use_beam_search) fail(`\`${field}\` is not supported with beam search.`);
  if (!asked) fail(`when using \`${field}\`, \`logprobs\` must be ${value}.`);
}

/** @throws ValidationError for a number of log probabilities below -1 */
export function checkLogprobsCount(name: string, value: number | null | undefined): void {
  if (value == null || value >= -1) return;
  throw new ValidationError(
    `\`${name}\` must be a positive value or -1. (parameter=${name}, value=${value})`,
    name,
    value,
  );
}
