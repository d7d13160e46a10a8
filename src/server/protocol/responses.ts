import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { notSupported } from '../errors.ts';
import type { ChatCompletionRequest } from './chat-completion.ts';
import { describedAs, MULTIMODAL, withoutEffect } from './field-metadata.ts';
import { anyObject, boolean, integer, integerBetween, isObject, list, literal, string } from './fields.ts';
import { checkGenerationFields, generationFields } from './generation-fields.ts';
import { parseBody } from './parse-body.ts';
import { type ConversationItem, type InputItem, parseInput, toMessages } from './responses-input.ts';
import { chatTools, type FunctionTool, functionTools, responseTools } from './responses-tools.ts';
import { refuseUnsupported } from './unsupported-fields.ts';
import { wrongValue } from './wrong-value.ts';

const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const;
const {
  stream_options: _options,
  stream_interval: _interval,
  max_tokens: _maxTokens,
  min_tokens: _minTokens,
  prompt_logprobs: _promptLogprobs,
  response_format: _format,
  truncate_prompt_tokens: _truncate,
  truncation_side: _side,
  use_beam_search: _beams,
  ...sharedFields
} = generationFields;

const INPUT = { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'object' } }] };

export const responsesSchema = v.object({
  ...sharedFields,
  input: v.pipe(v.unknown(), describedAs<unknown>(INPUT)),
  instructions: v.nullish(string, null),
  previous_response_id: v.nullish(string, null),
  store: v.nullish(boolean, true),
  background: v.nullish(boolean, false),
  max_output_tokens: v.nullish(integerBetween(1), null),
  max_tool_calls: withoutEffect(v.nullish(integer, null), 'it is about tools that a provider runs itself'),
  metadata: v.nullish(anyObject, null),
  include: v.nullish(
    list(
      literal(
        'code_interpreter_call.outputs',
        'computer_call_output.output.image_url',
        'file_search_call.results',
        'message.input_image.image_url',
        'message.output_text.logprobs',
        'reasoning.encrypted_content',
      ),
    ),
  ),
  top_logprobs: v.nullish(integerBetween(0)),
  tools: v.nullish(responseTools),
  tool_choice: v.nullish(v.unknown()),
  parallel_tool_calls: v.nullish(boolean, true),
  text: v.nullish(anyObject, null),
  reasoning: v.nullish(
    v.object(
      { effort: v.nullish(literal(...EFFORTS)), summary: v.nullish(literal('auto', 'concise', 'detailed')) },
      'model_attributes_type: Input should be a valid dictionary or object to extract fields from',
    ),
    null,
  ),
  include_reasoning: v.optional(boolean, true),
  truncation: v.nullish(literal('auto', 'disabled'), 'disabled'),
  service_tier: withoutEffect(
    v.optional(literal('auto', 'default', 'flex', 'scale', 'priority'), 'auto'),
    'there is one tier',
  ),
  chat_template_kwargs: v.nullish(anyObject),
  prompt: v.nullish(v.unknown()),
  conversation: v.nullish(v.unknown()),
  prompt_cache_key: withoutEffect(v.nullish(string), 'cached prefixes are found by what is in them'),
  enable_response_messages: v.optional(boolean),
  previous_input_messages: v.nullish(v.unknown()),
  media_io_kwargs: withoutEffect(v.nullish(anyObject), MULTIMODAL),
  mm_processor_kwargs: withoutEffect(v.nullish(anyObject), MULTIMODAL),
});

type ResponsesFields = v.InferOutput<typeof responsesSchema>;

/** A checked body of POST /v1/responses. */
export interface ResponsesRequest extends ResponsesFields {
  items: InputItem[];
  functions: FunctionTool[];
  includesLogprobs: boolean;
  /** The chat completion that means the same, but for its messages. */
  chat: Omit<ChatCompletionRequest, 'messages'>;
}

/**
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError where fields don't go together, or ask for what this server can't do
 */
export function parseResponses(body: unknown): ResponsesRequest {
  const fields = parseBody(responsesSchema, body);
  refuseAbsent(fields);
  if (fields.background && !fields.store) {
    throw new ValidationError('background can only be used when `store` is true', 'background');
  }
  checkMetadata(fields.metadata ?? {});
  const functions = functionTools(fields.tools ?? []);
  const includesLogprobs = fields.include?.includes('message.output_text.logprobs') ?? false;
  const chat = chatFields(fields, functions, includesLogprobs);
  checkGenerationFields(chat);
  refuseUnsupported(chat);
  return { ...fields, items: parseInput(fields.input), functions, includesLogprobs, chat };
}

/** The chat completion that continues these items. */
export function chatOfResponses(request: ResponsesRequest, items: readonly ConversationItem[]): ChatCompletionRequest {
  return { ...request.chat, messages: toMessages(request.instructions, items) };
}

/** OpenAI's bounds. */
function checkMetadata(metadata: Record<string, unknown>): void {
  const pairs = Object.entries(metadata);
  if (pairs.length > 16) throw wrongValue('metadata', 'at most 16 pairs', pairs.length);
  for (const [key, value] of pairs) {
    if (key.length > 64) throw wrongValue('metadata', 'an object whose keys have at most 64 characters', key);
    if (typeof value !== 'string' || value.length > 512) {
      throw wrongValue(`metadata.${key}`, 'a string of at most 512 characters', value);
    }
  }
}

function refuseAbsent(fields: ResponsesFields): void {
  for (const field of ['prompt', 'conversation', 'previous_input_messages'] as const) {
    if (fields[field] != null) throw notSupported(field);
  }
  if (fields.enable_response_messages) throw notSupported('enable_response_messages');
  const summary = fields.reasoning?.summary;
  if (summary != null && summary !== 'auto') {
    throw notSupported('reasoning.summary', 'reasoning is given as it is, not summed up; auto takes what there is');
  }
  const verbosity = fields.text?.verbosity;
  if (verbosity != null && verbosity !== 'medium') throw notSupported('text.verbosity', 'ask for it in instructions');
}

function chatFields(fields: ResponsesFields, functions: FunctionTool[], includesLogprobs: boolean) {
  const { top_logprobs: top, max_output_tokens, reasoning, include_reasoning, chat_template_kwargs } = fields;
  return {
    ...generationPart(fields),
    ...chatTools(functions, fields.tool_choice),
    // What runs in the background is told of while it runs.
    stream: fields.stream === true || fields.background === true,
    max_completion_tokens: max_output_tokens,
    logprobs: includesLogprobs,
    top_logprobs: includesLogprobs ? (top ?? 0) : null,
    parallel_tool_calls: fields.parallel_tool_calls,
    response_format: responseFormat(fields.text?.format ?? null),
    reasoning_effort: reasoning?.effort,
    include_reasoning,
    chat_template_kwargs,
    add_generation_prompt: true,
    continue_final_message: false,
    add_special_tokens: false,
  };
}

function generationPart(fields: ResponsesFields) {
  const names = Object.keys(sharedFields) as (keyof typeof sharedFields)[];
  return Object.fromEntries(names.map((name) => [name, fields[name]])) as Pick<
    ResponsesFields,
    keyof typeof sharedFields
  >;
}

/** `text.format` has what chat completions have under `json_schema` one level higher. */
function responseFormat(format: unknown): ChatCompletionRequest['response_format'] {
  if (format === null) return null;
  if (!isObject(format)) throw wrongValue('text.format', 'an object with a type', format);
  const { type, name, schema, strict } = format;
  if (type === 'text' || type === 'json_object') return { type };
  if (type !== 'json_schema') throw wrongValue('text.format.type', 'text, json_object or json_schema', type);
  if (!isObject(schema)) throw wrongValue('text.format.schema', 'a JSON schema', schema);
  return { type, json_schema: { name, schema, strict } };
}
