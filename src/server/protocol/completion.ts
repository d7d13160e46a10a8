import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { notSupported } from '../errors.ts';
import { describedAs } from './field-metadata.ts';
import { boolean, integer, string } from './fields.ts';
import {
  checkGenerationFields,
  checkLogprobsCount,
  checkLogprobTokenIds,
  generationFields,
} from './generation-fields.ts';
import { parseBody } from './parse-body.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** vLLM's bound (VLLM_MAX_COMPLETION_PROMPTS). */
const MAX_PROMPTS = 1024;
const DEFAULT_MAX_TOKENS = 16;

const PROMPT = {
  anyOf: [
    { type: 'string' },
    { type: 'array', items: { type: 'string' } },
    { type: 'array', items: { type: 'integer' } },
    { type: 'array', items: { type: 'array', items: { type: 'integer' } } },
  ],
};

export const completionSchema = v.object({
  ...generationFields,
  prompt: v.nullish(v.pipe(v.unknown(), describedAs<unknown>(PROMPT))),
  prompt_embeds: v.nullish(v.unknown()),
  n: v.optional(integer),
  echo: v.nullish(boolean),
  logprobs: v.nullish(integer),
  suffix: v.nullish(string),
  add_special_tokens: v.optional(boolean, true),
});

/** One prompt: text, or ids that need no tokenizer. */
export type CompletionPrompt = string | number[];

type Parsed = v.InferOutput<typeof completionSchema>;
export interface CompletionRequest extends Omit<Parsed, 'prompt' | 'prompt_embeds' | 'max_tokens'> {
  /** At least one. */
  prompts: CompletionPrompt[];
  max_tokens: number;
}

/**
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError where fields don't go together, or ask for what this server can't do
 */
export function parseCompletion(body: unknown): CompletionRequest {
  const { prompt, prompt_embeds: promptEmbeds, ...request } = parseBody(completionSchema, body);
  checkGenerationFields(request);
  checkLogprobsCount('logprobs', request.logprobs);
  checkLogprobTokenIds(request, request.logprobs != null, 'set');
  if (request.logprob_token_ids != null && request.echo && request.max_tokens === 0) {
    throw new ValidationError(
      '`logprob_token_ids` is not supported when `echo=True` and `max_tokens=0` because no output tokens are generated. (parameter=logprob_token_ids)',
      'logprob_token_ids',
    );
  }
  if (promptEmbeds != null) throw notSupported('prompt_embeds');
  if (request.suffix != null) throw new ValidationError('suffix is not currently supported', 'suffix');
  refuseUnsupported(request);
  return { ...request, prompts: toPrompts(prompt), max_tokens: request.max_tokens ?? DEFAULT_MAX_TOKENS };
}

function toPrompts(prompt: unknown): CompletionPrompt[] {
  if (prompt == null || prompt === '') {
    throw new ValidationError(
      'Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)',
      'prompt',
    );
  }
  if (typeof prompt === 'string') return [prompt];
  if (!Array.isArray(prompt)) throw malformed();
  if (prompt.length === 0) throw new ValidationError('Please provide at least one prompt.', 'prompt');
  if (prompt.every(isTokenId)) return [prompt];
  if (prompt.length > MAX_PROMPTS) {
    throw new ValidationError(
      `prompt list length ${prompt.length} exceeds the maximum allowed count of ${MAX_PROMPTS}. (parameter=prompt)`,
      'prompt',
    );
  }
  if (prompt.every((item) => typeof item === 'string')) return prompt;
  if (prompt.every((item) => Array.isArray(item) && item.every(isTokenId))) return prompt;
  throw malformed();
}

function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function malformed(): ValidationError {
  return new ValidationError(
    'prompt must be a string, a list of strings, a list of token ids, or a list of lists of token ids, ids being integers of at least 0.',
    'prompt',
  );
}
