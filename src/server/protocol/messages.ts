import * as v from 'valibot';
import { notSupported } from '../errors.ts';
import type { ChatCompletionRequest } from './chat-completion.ts';
import type { ToolDefinition } from './chat-messages.ts';
import { MULTIMODAL, withoutEffect } from './field-metadata.ts';
import { anyObject, boolean, integer, integerBetween, isObject, list, literal, number, string } from './fields.ts';
import { checkGenerationFields, stopStrings } from './generation-fields.ts';
import { toConversation } from './messages-conversation.ts';
import { parseBody } from './parse-body.ts';
import { refuseUnsupported } from './unsupported-fields.ts';
import { wrongValue } from './wrong-value.ts';

const OBJECT_EXPECTED = 'model_attributes_type: Input should be a valid dictionary or object to extract fields from';
const blocks = v.union([string, list(anyObject)], 'string_type: Input should be a valid string or a list of blocks');

/** Fields by which a conversation becomes a prompt. */
const promptFields = {
  model: string,
  messages: list(v.object({ role: literal('user', 'assistant', 'system'), content: blocks }, OBJECT_EXPECTED)),
  system: v.nullish(blocks),
  tools: v.nullish(
    list(
      v.object(
        {
          type: v.nullish(string),
          name: string,
          description: v.nullish(string, null),
          input_schema: v.nullish(anyObject, null),
        },
        OBJECT_EXPECTED,
      ),
    ),
  ),
  tool_choice: v.nullish(
    v.object(
      {
        type: literal('auto', 'any', 'tool', 'none'),
        name: v.nullish(string),
        disable_parallel_tool_use: v.nullish(boolean),
      },
      OBJECT_EXPECTED,
    ),
  ),
  thinking: v.nullish(v.unknown()),
  output_config: v.nullish(
    v.object(
      { effort: v.nullish(literal('low', 'medium', 'high', 'xhigh', 'max')), format: v.nullish(anyObject) },
      OBJECT_EXPECTED,
    ),
  ),
  chat_template_kwargs: v.nullish(anyObject),
};

export const countTokensSchema = v.object(promptFields);
type PromptRequest = v.InferOutput<typeof countTokensSchema>;

export const messagesSchema = v.object({
  ...promptFields,
  max_tokens: integerBetween(1),
  stream: v.nullish(boolean),
  stop_sequences: v.nullish(stopStrings),
  temperature: v.nullish(number),
  top_k: v.nullish(integer),
  top_p: v.nullish(number),
  cache_salt: v.nullish(v.unknown()),
  metadata: withoutEffect(v.nullish(anyObject), "it is about the client's own users"),
  watermarking: v.nullish(boolean),
  kv_transfer_params: v.nullish(anyObject),
  ec_transfer_params: v.nullish(anyObject),
  vllm_xargs: v.nullish(anyObject),
  mm_payload: withoutEffect(v.optional(literal('tensors', 'none')), MULTIMODAL),
  return_mm_kwargs: withoutEffect(v.nullish(boolean), MULTIMODAL),
});

/**
 * POST /v1/messages as the chat completion that means the same.
 *
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError where a field asks for what this server can't do
 */
export function parseMessages(body: unknown): ChatCompletionRequest {
  const { stop_sequences: stop, ...given } = parseBody(messagesSchema, body);
  const { max_tokens, stream, temperature, top_k, top_p, cache_salt } = given;
  const { watermarking, kv_transfer_params, ec_transfer_params, vllm_xargs } = given;
  const request = {
    ...toChat(given),
    ...{ stop, max_tokens, stream, temperature, top_k, top_p, cache_salt },
    ...{ watermarking, kv_transfer_params, ec_transfer_params, vllm_xargs },
  };
  checkGenerationFields(request);
  refuseUnsupported(request);
  return request;
}

/** POST /v1/messages/count_tokens, likewise. */
export function parseCountTokens(body: unknown): ChatCompletionRequest {
  return toChat(parseBody(countTokensSchema, body));
}

function toChat(request: PromptRequest): ChatCompletionRequest {
  const { tools, tool_choice: choice, output_config: output } = request;
  const messages = toConversation(request.system ?? null, request.messages);
  const last = messages.at(-1);
  // An answer that the client has begun is gone on with.
  const isPrefilled = last?.role === 'assistant' && last.tool_calls == null;
  return {
    model: request.model,
    messages,
    tools: tools == null || tools.length === 0 ? null : tools.map(toolDefinition),
    tool_choice: chatToolChoice(choice),
    parallel_tool_calls: choice?.disable_parallel_tool_use !== true,
    add_generation_prompt: !isPrefilled,
    continue_final_message: isPrefilled,
    add_special_tokens: false,
    reasoning_effort: output?.effort,
    response_format: responseFormat(output?.format ?? null),
    thinking_token_budget: thinkingBudget(request.thinking),
    chat_template_kwargs: { ...thinkingKwargs(request.thinking), ...request.chat_template_kwargs },
  };
}

function toolDefinition(
  { type, name, description, input_schema: parameters }: NonNullable<PromptRequest['tools']>[number],
  index: number,
): ToolDefinition {
  if (type != null && type !== 'custom') throw notSupported(`tools[${index}].type`, `this server has no ${type}`);
  if (parameters === null) throw wrongValue(`tools[${index}].input_schema`, 'a JSON schema', parameters);
  return { type: 'function', function: { name, description, parameters } };
}

function chatToolChoice(choice: PromptRequest['tool_choice']): ChatCompletionRequest['tool_choice'] {
  if (choice == null) return undefined;
  if (choice.type === 'any') return 'required';
  if (choice.type !== 'tool') return choice.type;
  if (choice.name == null) throw wrongValue('tool_choice.name', 'the name of a tool', choice.name);
  return { type: 'function', function: { name: choice.name } };
}

/** Clients send a budget to every model: it counts only where the server can hold the model to one. */
function thinkingBudget(thinking: unknown): number | null {
  if (!isObject(thinking) || thinking.type !== 'enabled' || thinking.budget_tokens == null) return null;
  const { budget_tokens: budget } = thinking;
  if (typeof budget === 'number' && Number.isInteger(budget) && budget > 0) return budget;
  throw wrongValue('thinking.budget_tokens', 'an integer of at least 1', budget);
}

function thinkingKwargs(thinking: unknown): Record<string, unknown> {
  if (thinking == null) return {};
  const type = isObject(thinking) ? thinking.type : undefined;
  if (type === 'disabled') return { enable_thinking: false };
  if (type === 'enabled' || type === 'adaptive') return { enable_thinking: true };
  throw wrongValue('thinking', 'an object whose type is enabled, disabled or adaptive', thinking);
}

function responseFormat(format: Record<string, unknown> | null): ChatCompletionRequest['response_format'] {
  if (format === null) return null;
  if (format.type !== 'json_schema' || !isObject(format.schema)) {
    throw wrongValue('output_config.format', 'an object of type json_schema with a schema', format);
  }
  return { type: 'json_schema', json_schema: { name: 'output', schema: format.schema, strict: true } };
}
