import type { GenerateRequest } from '../../engine/engine-client.ts';
import type { ChatCompletionRequest } from '../protocol/chat-completion.ts';
import { structuredOutputsOf } from '../protocol/structured-outputs.ts';
import { resolveToolChoice } from '../protocol/tool-choice.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerContext } from '../server-context.ts';
import { beamLogprobs, checkBeamSearch } from './beam-search.ts';
import { forcedCalls } from './forced-tools.ts';
import { engineRequestId, logRequest, placement, resolveMaxTokens, samplingParams } from './generation.ts';
import {
  type CallOrigin,
  chatOutputParsing,
  chatThinkingBudget,
  constraintBehindReasoning,
  keepsSpecialTokens,
  type OutputParsing,
} from './output-parsing.ts';
import { checkLimits, encodePrompt, type PromptLimits, renderChatPrompt } from './prompt.ts';

/** The endpoint that a conversation came to; each has its own words for the same. */
export interface ChatOrigin extends CallOrigin {
  /** Of the answer; the engine's id is made from it. */
  id: string;
  headers: Headers;
  maxOutputField: PromptLimits['maxOutputField'];
}

export interface PreparedChat {
  generate: GenerateRequest;
  /** The name to answer with. */
  model: string;
  promptText: string;
  /** null: answers are content and nothing else. */
  parsing: OutputParsing | null;
}

/**
 * A conversation, of whichever endpoint, to what the engine runs.
 *
 * @throws ApiError, ValidationError for what the client got wrong
 */
export async function prepareChat(
  context: ServerContext,
  request: ChatCompletionRequest,
  origin: ChatOrigin,
): Promise<PreparedChat> {
  const { engine, config } = context;
  const model = resolveModel(context, request.model);
  const maxTokens = request.max_completion_tokens ?? request.max_tokens ?? null;
  const limits = chatPromptLimits(context, request, origin.maxOutputField);
  checkLimits(limits);
  const toolChoice = resolveToolChoice(request, config.frontend.enableAutoToolChoice);
  const promptText = renderPromptOf(context, request);
  const promptTokenIds = await encodePrompt(engine, promptText, request.add_special_tokens, limits);
  const constraint = await context.structuredOutputs.resolve(
    forcedCalls(toolChoice, request.tools ?? [], context.formats.tools) ?? structuredOutputsOf(request),
  );
  const topLogprobs = request.top_logprobs ?? 0;
  const fields = keepsSpecialTokens(context, toolChoice) ? { ...request, skip_special_tokens: false } : request;
  const params = samplingParams(context, fields, {
    maxTokens: resolveMaxTokens(context, maxTokens, promptTokenIds.length),
    logprobs: logprobsOf(request),
    promptLogprobs: request.prompt_logprobs ?? (request.echo ? topLogprobs : null),
    outputKind: request.stream ? 'delta' : 'final-only',
    structuredOutputs: constraintBehindReasoning(context, request, promptText, constraint),
    thinkingBudget: chatThinkingBudget(context, request, promptText, promptTokenIds),
  });
  if (request.use_beam_search) checkBeamSearch(request, params);
  const generate = {
    requestId: engineRequestId(origin.id),
    promptTokenIds,
    params,
    ...placement(context, request, origin.headers, model.lora),
  };
  logRequest(context, generate, promptText);
  const parsing = chatOutputParsing(context, request, toolChoice, promptText, origin);
  return { generate, model: model.name, promptText, parsing };
}

function logprobsOf({ use_beam_search: isBeamSearch, n, logprobs, top_logprobs: top }: ChatCompletionRequest) {
  if (isBeamSearch) return beamLogprobs(n, top);
  return logprobs ? (top ?? 0) : null;
}

/** The conversation as text, with the tools that the model shall see. Throws ValidationError for a choice that doesn't go with the tools. */
export function renderPromptOf({ engine, config }: ServerContext, request: ChatCompletionRequest): string {
  const { enableAutoToolChoice, excludeToolsWhenToolChoiceNone } = config.frontend;
  const hidesTools = excludeToolsWhenToolChoiceNone && resolveToolChoice(request, enableAutoToolChoice) === 'none';
  return renderChatPrompt(engine, hidesTools ? { ...request, tools: null } : request);
}

export function chatPromptLimits(
  { config }: ServerContext,
  request: ChatCompletionRequest,
  maxOutputField: PromptLimits['maxOutputField'],
): PromptLimits {
  return {
    maxModelLen: config.model.maxModelLen,
    maxOutputTokens: Math.max(request.max_completion_tokens ?? request.max_tokens ?? 0, 0),
    maxOutputField,
    truncate: request.truncate_prompt_tokens ?? null,
    truncationSide: request.truncation_side ?? 'left',
  };
}
