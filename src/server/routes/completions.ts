import type { GenerateRequest } from '../../engine/engine-client.ts';
import { resolveThinkingBudget } from '../../parsers/reasoning/thinking-budget.ts';
import { jsonAnswer } from '../answers/answer-head.ts';
import { type CompletionFormat, completionAnswerJson } from '../answers/completion-answer.ts';
import { CompletionStreamEncoder } from '../answers/completion-stream.ts';
import { streamUsage } from '../answers/usage.ts';
import { beamLogprobs, checkBeamSearch, collectBeams } from '../generation/beam-search.ts';
import {
  collectOutputs,
  engineRequestId,
  logRequest,
  placement,
  resolveMaxTokens,
  samplingParams,
} from '../generation/generation.ts';
import { checkLimits, encodePrompt, type PromptLimits, promptFromIds } from '../generation/prompt.ts';
import { streamGeneration } from '../generation/stream-generation.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import {
  type CompletionPrompt,
  type CompletionRequest,
  completionSchema,
  parseCompletion,
} from '../protocol/completion.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { structuredOutputsOf } from '../protocol/structured-outputs.ts';
import { chooseRequestId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const COMPLETION = {
  summary: 'Continue a text',
  body: { CompletionRequest: completionSchema },
  answers: ['application/json', 'text/event-stream'],
} as const;

/** POST /v1/completions. */
export function registerCompletions(app: ServerApp, context: ServerContext): void {
  app.post('/v1/completions', describeRoute(COMPLETION), async (c) => {
    const raw = c.req.raw;
    const request = parseCompletion(await readJsonBody(raw, context.config.frontend));
    const { generate, format } = await prepare(context, request, raw.headers, c.get('requestId'));
    if (!request.stream) {
      const outputs = request.use_beam_search
        ? await collectBeams(context, generate, request.length_penalty, raw.signal)
        : await collectOutputs(context, generate, raw.signal);
      return jsonAnswer(completionAnswerJson(outputs, format));
    }
    const usage = streamUsage(request.stream_options, context.config.frontend.enableForceIncludeUsage);
    const interval = Math.max(request.stream_interval ?? 1, context.config.scheduler.streamInterval);
    const encoder = new CompletionStreamEncoder(format, usage, generate.length, interval);
    return streamGeneration(context, generate, raw.signal, encoder, format.head.id);
  });
}

interface PreparedCompletion {
  /** One a prompt. */
  generate: GenerateRequest[];
  format: CompletionFormat;
}

async function prepare(
  context: ServerContext,
  request: CompletionRequest,
  headers: Headers,
  requestId: string,
): Promise<PreparedCompletion> {
  const model = resolveModel(context, request.model);
  const limits = promptLimits(context, request);
  checkLimits(limits);
  const prompts = await Promise.all(request.prompts.map((prompt) => encode(context, prompt, request, limits)));
  const id = `cmpl-${chooseRequestId(headers.get('X-Request-Id'), request.request_id, requestId)}`;
  const place = placement(context, request, headers, model.lora);
  const promptOnly = request.echo === true && request.max_tokens === 0;
  const structuredOutputs = await context.structuredOutputs.resolve(structuredOutputsOf(request));
  const generate = prompts.map((promptTokenIds) => ({
    requestId: engineRequestId(id),
    promptTokenIds,
    params: samplingParams(context, request, {
      // A prompt alone can't be run; the one token is not shown.
      maxTokens: promptOnly ? 1 : resolveMaxTokens(context, request.max_tokens, promptTokenIds.length),
      logprobs: request.use_beam_search ? beamLogprobs(request.n, request.logprobs) : (request.logprobs ?? null),
      promptLogprobs: request.prompt_logprobs ?? (request.echo ? (request.logprobs ?? null) : null),
      outputKind: request.stream ? 'delta' : 'final-only',
      structuredOutputs,
      thinkingBudget: resolveThinkingBudget(request.thinking_token_budget, {
        format: context.formats.reasoning,
        tokenizer: context.engine.tokenizer,
        promptTokenIds,
      }),
    }),
    ...place,
  }));
  if (request.use_beam_search) for (const { params } of generate) checkBeamSearch(request, params);
  generate.forEach((item, i) => {
    const prompt = request.prompts[i]!;
    logRequest(context, item, typeof prompt === 'string' ? prompt : null);
  });
  return { generate, format: answerFormat(context, request, { id, model: model.name, promptOnly }) };
}

async function encode(
  { engine, config }: ServerContext,
  prompt: CompletionPrompt,
  request: CompletionRequest,
  limits: PromptLimits,
): Promise<Int32Array> {
  if (typeof prompt !== 'string') return promptFromIds(prompt, config.model.hf.vocabSize, limits);
  return encodePrompt(engine, prompt, request.add_special_tokens, limits);
}

function promptLimits({ config }: ServerContext, request: CompletionRequest): PromptLimits {
  return {
    maxModelLen: config.model.maxModelLen,
    maxOutputTokens: Math.max(request.max_tokens, 0),
    maxOutputField: 'max_tokens',
    truncate: request.truncate_prompt_tokens ?? null,
    truncationSide: request.truncation_side ?? 'left',
  };
}

function answerFormat(
  { engine, config, systemFingerprint }: ServerContext,
  request: CompletionRequest,
  { id, model, promptOnly }: { id: string; model: string; promptOnly: boolean },
): CompletionFormat {
  const { frontend } = config;
  const { tokenizer } = engine;
  const textOf = (prompt: CompletionPrompt) =>
    typeof prompt === 'string' ? prompt : (tokenizer?.decode(prompt, { skipSpecialTokens: false }) ?? '');
  const asTokenIds = request.return_tokens_as_token_ids ?? frontend.returnTokensAsTokenIds;
  return {
    head: { id, created: Math.floor(Date.now() / 1000), model, systemFingerprint },
    n: request.n ?? 1,
    echo: request.echo ? request.prompts.map(textOf) : null,
    promptOnly,
    logprobs:
      request.logprobs == null
        ? null
        : { topN: request.logprob_token_ids == null ? request.logprobs : -1, asTokenIds, tokenizer },
    returnTokenIds: request.return_token_ids ?? false,
    reportCachedTokens: frontend.enablePromptTokensDetails,
  };
}
