import * as v from 'valibot';
import { templateFields } from './chat-completion.ts';
import { boolean, integers, isObject, string } from './fields.ts';
import { parseBody } from './parse-body.ts';

export const tokenizeCompletionSchema = v.object({
  model: v.nullish(string),
  prompt: string,
  add_special_tokens: v.optional(boolean, true),
  return_token_strs: v.nullish(boolean),
});

export const tokenizeChatSchema = v.object({
  ...templateFields,
  model: v.nullish(string),
  return_token_strs: v.nullish(boolean),
});

export const detokenizeSchema = v.object({ model: v.nullish(string), tokens: integers });

export type TokenizeCompletionRequest = v.InferOutput<typeof tokenizeCompletionSchema>;
export type TokenizeChatRequest = v.InferOutput<typeof tokenizeChatSchema>;
export type DetokenizeRequest = v.InferOutput<typeof detokenizeSchema>;

/** A text, or a conversation where the body has messages. */
export function parseTokenize(body: unknown): TokenizeCompletionRequest | TokenizeChatRequest {
  if (!isObject(body) || !('messages' in body)) return parseBody(tokenizeCompletionSchema, body);
  return parseBody(tokenizeChatSchema, body);
}

export function parseDetokenize(body: unknown): DetokenizeRequest {
  return parseBody(detokenizeSchema, body);
}
