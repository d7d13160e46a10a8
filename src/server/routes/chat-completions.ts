import type { GenerateRequest } from '../../engine/engine-client.ts';
import { jsonAnswer } from '../answers/answer-head.ts';
import { type ChatFormat, chatAnswerJson } from '../answers/chat-answer.ts';
import { ChatStreamEncoder } from '../answers/chat-stream.ts';
import { streamUsage } from '../answers/usage.ts';
import { forcedCalls } from '../generation/forced-tools.ts';
import {
  collectOutputs,
  engineRequestId,
  logRequest,
  placement,
  resolveMaxTokens,
  samplingParams,
} from '../generation/generation.ts';
import {
  chatOutputParsing,
  constraintBehindReasoning,
  keepsSpecialTokens,
  type OutputParsing,
} from '../generation/output-parsing.ts';
import { checkLimits, encodePrompt, type PromptLimits, renderChatPrompt } from '../generation/prompt.ts';
import { streamGeneration } from '../generation/stream-generation.ts';
import { type ChatCompletionRequest, parseChatCompletion } from '../protocol/chat-completion.ts';
import { contentText } from '../protocol/chat-messages.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { structuredOutputsOf } from '../protocol/structured-outputs.ts';
import { resolveToolChoice } from '../protocol/tool-choice.ts';
import { chooseRequestId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /v1/chat/completions. */
export function registerChatCompletions(app: ServerApp, context: ServerContext): void {
  app.post('/v1/chat/completions', async (c) => {
    const raw = c.req.raw;
    const request = parseChatCompletion(await readJsonBody(raw, context.config.frontend.requestBodyLimit));
    const { generate, format } = await prepare(context, request, raw.headers, c.get('requestId'));
    if (!request.stream) {
      const [output] = await collectOutputs(context, [generate], raw.signal);
      return jsonAnswer(chatAnswerJson(output!, format));
    }
    const usage = streamUsage(request.stream_options, context.config.frontend.enableForceIncludeUsage);
    const interval = Math.max(request.stream_interval ?? 1, context.config.scheduler.streamInterval);
    const encoder = new ChatStreamEncoder(format, usage, interval);
    return streamGeneration(context, [generate], raw.signal, encoder, format.head.id);
  });
}

interface PreparedChat {
  generate: GenerateRequest;
  format: ChatFormat;
}

async function prepare(
  context: ServerContext,
  request: ChatCompletionRequest,
  headers: Headers,
  requestId: string,
): Promise<PreparedChat> {
  const { engine, config } = context;
  const model = resolveModel(config, request.model);
  const maxTokens = request.max_completion_tokens ?? request.max_tokens ?? null;
  const limits = promptLimits(context, request, maxTokens);
  checkLimits(limits);
  const toolChoice = resolveToolChoice(request, config.frontend.enableAutoToolChoice);
  const hidesTools = toolChoice === 'none' && config.frontend.excludeToolsWhenToolChoiceNone;
  const promptText = renderChatPrompt(engine, hidesTools ? { ...request, tools: null } : request);
  const promptTokenIds = await encodePrompt(engine, promptText, request.add_special_tokens, limits);
  const constraint = await context.structuredOutputs.resolve(
    forcedCalls(toolChoice, request.tools ?? [], context.formats.tools) ?? structuredOutputsOf(request),
  );
  const topLogprobs = request.top_logprobs ?? 0;
  const fields = keepsSpecialTokens(context, toolChoice) ? { ...request, skip_special_tokens: false } : request;
  const params = samplingParams(context, fields, {
    n: request.n,
    maxTokens: resolveMaxTokens(context, maxTokens, promptTokenIds.length),
    logprobs: request.logprobs ? topLogprobs : null,
    promptLogprobs: request.prompt_logprobs ?? (request.echo ? topLogprobs : null),
    outputKind: request.stream ? 'delta' : 'final-only',
    structuredOutputs: constraintBehindReasoning(context, request, promptText, constraint),
  });
  const id = `chatcmpl-${chooseRequestId(headers.get('X-Request-Id'), request.request_id, requestId)}`;
  const generate = {
    requestId: engineRequestId(id),
    promptTokenIds,
    params,
    ...placement(context, request, headers, model.loraName),
  };
  logRequest(context, generate, promptText);
  const parsing = chatOutputParsing(context, request, toolChoice, promptText);
  return {
    generate,
    format: answerFormat(context, request, { id, model: model.name, n: params.n, promptText, parsing }),
  };
}

function promptLimits(
  { config }: ServerContext,
  request: ChatCompletionRequest,
  maxTokens: number | null,
): PromptLimits {
  return {
    maxModelLen: config.model.maxModelLen,
    maxOutputTokens: Math.max(maxTokens ?? 0, 0),
    maxOutputField: request.max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens',
    truncate: request.truncate_prompt_tokens ?? null,
    truncationSide: request.truncation_side ?? 'left',
  };
}

interface AnswerParts {
  id: string;
  model: string;
  n: number;
  promptText: string;
  parsing: OutputParsing | null;
}

function answerFormat(
  { engine, config, systemFingerprint }: ServerContext,
  request: ChatCompletionRequest,
  { id, model, n, promptText, parsing }: AnswerParts,
): ChatFormat {
  const { frontend } = config;
  const last = request.messages.at(-1)!;
  const role = request.add_generation_prompt ? frontend.responseRole : last.role;
  const asTokenIds = request.return_tokens_as_token_ids ?? frontend.returnTokensAsTokenIds;
  return {
    head: { id, created: Math.floor(Date.now() / 1000), model, systemFingerprint },
    role,
    n,
    echo: request.echo && last.role === role ? contentText(last.content) : '',
    logprobs: request.logprobs ? { topN: request.top_logprobs ?? 0, asTokenIds, tokenizer: engine.tokenizer } : null,
    returnTokenIds: request.return_token_ids ?? false,
    promptText: request.return_prompt_text ? promptText : null,
    reportCachedTokens: frontend.enablePromptTokensDetails,
    parsing,
  };
}
