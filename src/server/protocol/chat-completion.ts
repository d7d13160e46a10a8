import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { chatMessages, toolDefinitions } from './chat-messages.ts';
import { MULTIMODAL, withoutEffect } from './field-metadata.ts';
import { anyObject, boolean, integer, list, literal, string } from './fields.ts';
import {
  checkGenerationFields,
  checkLogprobsCount,
  checkLogprobTokenIds,
  generationFields,
} from './generation-fields.ts';
import { parseBody } from './parse-body.ts';
import { refuseUnsupported } from './unsupported-fields.ts';

/** The same bound as for prompts of one completion. */
const MAX_CONVERSATIONS = 1024;

/** Fields by which a conversation becomes a prompt; /tokenize has them too. */
export const templateFields = {
  messages: chatMessages,
  tools: v.nullish(toolDefinitions),
  add_generation_prompt: v.optional(boolean, true),
  continue_final_message: v.optional(boolean, false),
  add_special_tokens: v.optional(boolean, false),
  chat_template: v.nullish(string),
  chat_template_kwargs: v.nullish(anyObject),
  media_io_kwargs: withoutEffect(v.nullish(anyObject), MULTIMODAL),
  mm_processor_kwargs: withoutEffect(v.nullish(anyObject), MULTIMODAL),
};

const templateSchema = v.object(templateFields);
export type TemplateFields = v.InferOutput<typeof templateSchema>;

export const chatCompletionSchema = v.object({
  ...generationFields,
  ...templateFields,
  n: v.nullish(integer),
  max_completion_tokens: v.nullish(integer),
  logprobs: v.nullish(boolean),
  top_logprobs: v.nullish(integer),
  tool_choice: v.nullish(v.union([string, anyObject], 'string_type: Input should be a valid string or dictionary')),
  parallel_tool_calls: v.nullish(boolean),
  reasoning_effort: v.nullish(literal('none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max')),
  include_reasoning: v.optional(boolean),
  echo: v.optional(boolean),
  documents: v.nullish(list(anyObject)),
  return_prompt_text: v.nullish(boolean),
});

export const chatCompletionBatchSchema = v.object({
  ...chatCompletionSchema.entries,
  messages: v.pipe(
    list(chatMessages),
    v.minLength(1, 'too_short: List should have at least 1 item after validation'),
    v.maxLength(MAX_CONVERSATIONS, `too_long: List should have at most ${MAX_CONVERSATIONS} items after validation`),
  ),
});

export type ChatCompletionRequest = v.InferOutput<typeof chatCompletionSchema>;

/**
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError where fields don't go together, or ask for what this server can't do
 */
export function parseChatCompletion(body: unknown): ChatCompletionRequest {
  return checkChatCompletion(parseBody(chatCompletionSchema, body));
}

/**
 * A body whose messages are a list of conversations, to a request for each of them; they have everything else in common.
 *
 * @throws as `parseChatCompletion`
 */
export function parseChatCompletionBatch(body: unknown): ChatCompletionRequest[] {
  const { messages: conversations, ...common } = parseBody(chatCompletionBatchSchema, body);
  if (common.stream) throw new ValidationError('`stream` is not possible for a batch of conversations.', 'stream');
  return conversations.map((messages) => checkChatCompletion({ ...common, messages }));
}

function checkChatCompletion(request: ChatCompletionRequest): ChatCompletionRequest {
  checkGenerationFields(request);
  checkTopLogprobs(request);
  checkLogprobTokenIds(request, request.logprobs === true, 'set to true');
  refuseUnsupported(request);
  return request;
}

function checkTopLogprobs({ top_logprobs: top, logprobs }: ChatCompletionRequest): void {
  checkLogprobsCount('top_logprobs', top);
  if (top != null && top !== 0 && !logprobs) {
    throw new ValidationError(
      'when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)',
      'top_logprobs',
    );
  }
}
