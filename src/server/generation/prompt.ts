import type { EngineClient } from '../../engine/engine-client.ts';
import { parameterError, pythonInt } from '../../errors/parameter-error.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { TemplateFields } from '../protocol/chat-completion.ts';
import { toTemplateMessages } from '../protocol/chat-messages.ts';

/** How long a prompt may be, and how it is cut to fit. */
export interface PromptLimits {
  maxModelLen: number;
  /** Output tokens asked for; 0: as many as fit. */
  maxOutputTokens: number;
  /** The field that asked for them. */
  maxOutputField: 'max_tokens' | 'max_completion_tokens' | 'max_output_tokens';
  /** Prompt tokens to keep; -1: as many as may be; null: no cutting. */
  truncate: number | null;
  /** From which side tokens are cut off. */
  truncationSide: 'left' | 'right';
}

/** @throws ValidationError for output or truncation lengths that no prompt could meet */
export function checkLimits(limits: PromptLimits): void {
  const { maxModelLen, maxOutputTokens, maxOutputField, truncate } = limits;
  if (maxOutputTokens > maxModelLen) {
    const sentence = `${maxOutputField}=${pythonInt(maxOutputTokens)} cannot be greater than max_model_len=${maxModelLen}. Please request fewer output tokens.`;
    throw parameterError(sentence, maxOutputField, maxOutputTokens);
  }
  const maxInput = maxModelLen - maxOutputTokens;
  if (truncate !== null && truncate > maxInput) {
    const sentence = `truncate_prompt_tokens=${pythonInt(truncate)} cannot be greater than max_model_len - ${maxOutputField} = ${maxInput}. Please request a smaller truncation size.`;
    throw parameterError(sentence, 'truncate_prompt_tokens', truncate);
  }
}

/**
 * Text to ids within the limits. What is longer than any prompt of that many tokens could be is refused before it is tokenized.
 *
 * @throws ValidationError
 */
export async function encodePrompt(
  engine: EngineClient,
  text: string,
  addSpecialTokens: boolean,
  limits: PromptLimits,
): Promise<Int32Array> {
  if (limits.truncate === null && engine.tokenizer !== null) checkTextLength(text, engine.tokenizer, limits);
  return fitPrompt(await engine.encode(text, { addSpecialTokens }), limits);
}

/** @throws ValidationError for ids that the model doesn't know, and for a prompt that doesn't fit */
export function promptFromIds(ids: readonly number[], vocabSize: number, limits: PromptLimits): Int32Array {
  let largest = -1;
  for (const id of ids) if (id > largest) largest = id;
  if (largest >= vocabSize) throw new ValidationError(`Token id ${pythonInt(largest)} is out of vocabulary`);
  return fitPrompt(Int32Array.from(ids), limits);
}

/** @throws ValidationError for a text longer than any prompt of that many tokens could be */
export function checkTextLength(
  text: string,
  tokenizer: Tokenizer,
  { maxModelLen, maxOutputTokens }: PromptLimits,
): void {
  const maxInput = maxModelLen - maxOutputTokens;
  if (text.length <= maxInput) return;
  const maxCharacters = maxInput * maxTokenLength(tokenizer);
  if (text.length <= maxCharacters) return;
  throw parameterError(
    `You passed ${text.length} input characters and requested ${maxOutputTokens} output tokens. However, the model's context length is only ${maxModelLen} tokens, resulting in a maximum input length of ${maxInput} tokens (at most ${maxCharacters} characters). Please reduce the length of the input prompt.`,
    'input_text',
    text.length,
  );
}

const maxTokenLengths = new WeakMap<Tokenizer, number>();

/** Characters of the vocabulary's longest token; walks the vocabulary once. */
function maxTokenLength(tokenizer: Tokenizer): number {
  let longest = maxTokenLengths.get(tokenizer);
  if (longest === undefined) {
    longest = 1;
    for (let id = 0; id < tokenizer.vocabSize; id++) longest = Math.max(longest, tokenizer.idToToken(id)?.length ?? 0);
    maxTokenLengths.set(tokenizer, longest);
  }
  return longest;
}

function fitPrompt(ids: Int32Array, limits: PromptLimits): Int32Array {
  const prompt = truncatePrompt(ids, limits);
  const { maxModelLen, maxOutputTokens } = limits;
  if (prompt.length === 0) throw new ValidationError('The decoder prompt cannot be empty', 'prompt');
  const limit = `This model's maximum context length is ${maxModelLen} tokens. However,`;
  if (prompt.length > maxModelLen) {
    const sentence = `${limit} your prompt contains at least ${maxModelLen + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.`;
    throw parameterError(sentence, 'input_tokens', maxModelLen + 1);
  }
  if (prompt.length + maxOutputTokens > maxModelLen) {
    const sentence = `${limit} you requested ${maxOutputTokens} output tokens and your prompt contains at least ${prompt.length} input tokens, for a total of at least ${prompt.length + maxOutputTokens} tokens. Please reduce the length of the input prompt or the number of requested output tokens.`;
    throw parameterError(sentence, 'input_tokens', prompt.length);
  }
  return prompt;
}

function truncatePrompt(
  ids: Int32Array,
  { truncate, truncationSide, maxModelLen, maxOutputTokens }: PromptLimits,
): Int32Array {
  if (truncate === null) return ids;
  const keep = truncate === -1 ? maxModelLen - maxOutputTokens : truncate;
  if (keep >= ids.length) return ids;
  return truncationSide === 'left' ? ids.subarray(ids.length - keep) : ids.subarray(0, keep);
}

/** Fields of the conversation that only chat completions have. */
export interface ChatPromptFields extends TemplateFields {
  documents?: Record<string, unknown>[] | null;
  reasoning_effort?: string | null;
}

/**
 * The conversation as text.
 *
 * @throws ValidationError for a conversation that the template can't render, and for a template of the request's own unless the operator allows it
 */
export function renderChatPrompt(engine: EngineClient, fields: ChatPromptFields): string {
  const given = fields.chat_template_kwargs ?? {};
  const { trustRequestChatTemplate } = engine.config.frontend;
  if (!trustRequestChatTemplate && (fields.chat_template != null || given.chat_template != null)) {
    throw new ValidationError(
      'Chat template is passed with request, but --trust-request-chat-template is not set. Refused request with untrusted chat template.',
      'chat_template',
    );
  }
  return engine.renderChat({
    messages: toTemplateMessages(fields.messages),
    tools: fields.tools ?? null,
    documents: fields.documents ?? null,
    addGenerationPrompt: fields.add_generation_prompt,
    continueFinalMessage: fields.continue_final_message,
    chatTemplate: fields.chat_template ?? null,
    chatTemplateKwargs: chatTemplateKwargs(engine, fields),
  });
}

/** Variables for the template: the operator's, those of the request over them. */
export function chatTemplateKwargs(engine: EngineClient, fields: ChatPromptFields): Record<string, unknown> {
  const given = fields.chat_template_kwargs ?? {};
  const { defaultChatTemplateKwargs } = engine.config.frontend;
  return { ...defaultChatTemplateKwargs, ...given, ...reasoningKwargs(fields.reasoning_effort, given) };
}

/** Templates know thinking by either name. */
function reasoningKwargs(effort: string | null | undefined, given: Record<string, unknown>): Record<string, unknown> {
  if (effort == null) return {};
  const kwargs: Record<string, unknown> = { reasoning_effort: effort };
  if (!('enable_thinking' in given)) kwargs.enable_thinking = effort !== 'none';
  return kwargs;
}
