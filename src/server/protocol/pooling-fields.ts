import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { notSupported } from '../errors.ts';
import { chatMessages } from './chat-messages.ts';
import { describedAs, MULTIMODAL, withoutEffect } from './field-metadata.ts';
import { anyObject, boolean, int64, integerBetween, isObject, literal, string } from './fields.ts';
import { parsePart } from './parse-body.ts';

/** OpenAI's bound on the texts of one request. */
const MAX_INPUTS = 2048;

/** What all requests that are pooled have in common. */
export const poolingFields = {
  model: v.nullish(string),
  user: withoutEffect(v.nullish(string), "it is about the client's own users"),
  truncate_prompt_tokens: v.nullish(integerBetween(-1)),
  truncation_side: v.nullish(literal('left', 'right')),
  padding: v.nullish(literal('max_length', 'do_not_pad')),
  request_id: v.optional(string),
  priority: v.optional(int64),
  mm_processor_kwargs: v.nullish(anyObject),
  cache_salt: v.nullish(
    v.pipe(
      string,
      v.minLength(1, 'string_too_short: String should have at least 1 character'),
      v.maxLength(1024, 'string_too_long: String should have at most 1024 characters'),
    ),
  ),
  use_activation: v.nullish(boolean),
};

/** How vectors are written. */
export const encodingFields = {
  encoding_format: v.optional(literal('float', 'base64', 'bytes', 'bytes_only'), 'float'),
  embed_dtype: v.optional(literal('float32', 'float16', 'bfloat16', 'fp8_e4m3', 'fp8_e5m2'), 'float32'),
  endianness: v.optional(literal('native', 'big', 'little'), 'native'),
};

export interface VectorEncoding {
  format: 'float' | 'base64' | 'bytes' | 'bytes_only';
  dtype: 'float32' | 'float16' | 'bfloat16';
  endianness: 'native' | 'big' | 'little';
}

const poolingSchema = v.object({ ...poolingFields, ...encodingFields });
export type PoolingFields = v.InferOutput<typeof poolingSchema>;

/** A text or ids of one, as in /v1/completions. */
export type PoolingText = string | number[];

/** What is pooled: texts, or conversations. */
const INPUT = {
  anyOf: [
    { type: 'string' },
    { type: 'array', items: { type: 'string' } },
    { type: 'array', items: { type: 'integer' } },
    { type: 'array', items: { type: 'array', items: { type: 'integer' } } },
  ],
};
const textFields = {
  input: v.pipe(v.unknown(), describedAs<unknown>(INPUT)),
  add_special_tokens: v.optional(boolean, true),
};
const chatFields = {
  messages: chatMessages,
  add_generation_prompt: v.optional(boolean, false),
  continue_final_message: v.optional(boolean, false),
  add_special_tokens: v.optional(boolean, false),
  chat_template: v.nullish(string),
  chat_template_kwargs: v.nullish(anyObject),
  media_io_kwargs: withoutEffect(v.nullish(anyObject), MULTIMODAL),
};

const chatSchema = v.object(chatFields);
export type PoolingChat = v.InferOutput<typeof chatSchema>;

/** The bodies that an endpoint takes, for its description: its own fields beside either input. */
export function poolingBodies<const Entries extends v.ObjectEntries>(name: string, entries: Entries) {
  return {
    [`${name}CompletionRequest`]: v.object({ ...entries, ...textFields }),
    [`${name}ChatRequest`]: v.object({ ...entries, ...chatFields }),
  };
}

/** The input of a request: texts with their special tokens wanted or not, or conversations. */
export type PoolingInput =
  | { kind: 'texts'; texts: PoolingText[]; addSpecialTokens: boolean }
  | { kind: 'chats'; chats: PoolingChat[] };

/**
 * Parses a body of either form by the fields that an endpoint has beside its input.
 *
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError where fields don't go together, or ask for what this server can't do
 */
export function parsePoolingBody<const Entries extends v.ObjectEntries>(
  body: unknown,
  entries: Entries,
): { request: v.InferOutput<v.ObjectSchema<Entries, undefined>>; input: PoolingInput } {
  refuseRemoved(body);
  const request = parsePart(v.object(entries), body);
  if (isObject(body)) {
    const conversations = 'messages' in body ? body.messages : isConversation(body.input) ? body.input : undefined;
    if (conversations !== undefined) return { request, input: parseChats(body, conversations) };
  }
  const { input, add_special_tokens: addSpecialTokens } = parsePart(v.object(textFields), body);
  return { request, input: { kind: 'texts', texts: toTexts(input), addSpecialTokens } };
}

/** @throws ValidationError for what vLLM has and this server has not */
export function refuseUnsupportedPooling(
  request: v.InferOutput<v.ObjectSchema<typeof poolingFields, undefined>>,
): void {
  if (request.padding === 'max_length') throw notSupported('padding', 'texts are computed at their own length');
  if (request.mm_processor_kwargs != null) throw notSupported('mm_processor_kwargs', 'models read text only');
}

/** @throws ValidationError for the 8-bit types */
export function vectorEncoding({
  encoding_format: format,
  embed_dtype: dtype,
  endianness,
}: v.InferOutput<v.ObjectSchema<typeof encodingFields, undefined>>): VectorEncoding {
  if (dtype === 'fp8_e4m3' || dtype === 'fp8_e5m2') {
    throw notSupported('embed_dtype', `${dtype} is not written; float32, float16 and bfloat16 are`);
  }
  return { format, dtype, endianness };
}

/** @throws ValidationError for the field by which older clients asked for `use_activation` */
export function refuseRemoved(body: unknown): void {
  if (isObject(body) && 'normalize' in body) {
    throw new ValidationError('Parameter `normalize` was removed; use `use_activation` instead.', 'normalize');
  }
}

/** @throws ValidationError for more texts than a request may have */
export function checkNumInputs(count: number, field: string): void {
  if (count <= MAX_INPUTS) return;
  throw new ValidationError(
    `\`${field}\` has ${count} items; a request may have at most ${MAX_INPUTS}. (parameter=${field})`,
    field,
  );
}

/** One conversation or a list of them, all with the body's other fields. */
function parseChats(body: Record<string, unknown>, conversations: unknown): PoolingInput {
  const areMany = Array.isArray(conversations) && conversations.length > 0 && conversations.every(Array.isArray);
  const list: unknown[] = areMany ? conversations : [conversations];
  checkNumInputs(list.length, 'messages');
  const chats = list.map((messages) => parsePart(chatSchema, { ...body, messages }));
  if (chats[0]!.continue_final_message && chats[0]!.add_generation_prompt) {
    throw new ValidationError(
      'Cannot set both `continue_final_message` and `add_generation_prompt` to True.',
      'continue_final_message',
    );
  }
  return { kind: 'chats', chats };
}

/** Messages, or lists of such, where others have texts. */
function isConversation(input: unknown): boolean {
  if (!Array.isArray(input) || input.length === 0) return false;
  const isMessage = (item: unknown) => isObject(item) && typeof item.role === 'string';
  return (
    input.every(isMessage) || input.every((item) => Array.isArray(item) && item.length > 0 && item.every(isMessage))
  );
}

function toTexts(input: unknown): PoolingText[] {
  if (typeof input === 'string') return [input];
  if (!Array.isArray(input)) throw malformed();
  if (input.length === 0) throw new ValidationError('Please provide at least one input.', 'input');
  if (input.every(isTokenId)) return [input];
  checkNumInputs(input.length, 'input');
  if (input.every((item) => typeof item === 'string')) return input;
  if (input.every((item) => Array.isArray(item) && item.every(isTokenId))) return input;
  throw malformed();
}

export function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function malformed(): ValidationError {
  return new ValidationError(
    'input must be a string, a list of strings, a list of token ids, or a list of lists of token ids, ids being integers of at least 0.',
    'input',
  );
}
