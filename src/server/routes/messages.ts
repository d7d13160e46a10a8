import type { GenerateRequest } from '../../engine/engine-client.ts';
import { canLimitThinking } from '../../parsers/reasoning/thinking-budget.ts';
import { type MessageFormat, messageAnswer, messageErrorResponse } from '../answers/message-answer.ts';
import { MessageStreamEncoder } from '../answers/message-stream.ts';
import { collectOutputs } from '../generation/generation.ts';
import { chatPromptLimits, prepareChat, renderPromptOf } from '../generation/prepare-chat.ts';
import { checkTextLength } from '../generation/prompt.ts';
import { streamGeneration } from '../generation/stream-generation.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import type { ChatCompletionRequest } from '../protocol/chat-completion.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { countTokensSchema, messagesSchema, parseCountTokens, parseMessages } from '../protocol/messages.ts';
import { chooseRequestId, randomId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** Refusals under /v1/messages are told in Anthropic's words, those of the middleware behind this too. */
export function useMessageErrors(app: ServerApp): void {
  app.use('/v1/messages/*', async (c, next) => {
    c.set('errorResponse', messageErrorResponse);
    await next();
  });
}

/** Anthropic's POST /v1/messages and /v1/messages/count_tokens. */
export function registerMessages(app: ServerApp, context: ServerContext): void {
  const { config, engine } = context;
  const bodyLimits = config.frontend;
  const creation = {
    summary: "Answer a conversation, in Anthropic's words",
    body: { AnthropicMessagesRequest: messagesSchema },
    answers: ['application/json', 'text/event-stream'],
  } as const;
  app.post('/v1/messages', describeRoute(creation), async (c) => {
    const raw = c.req.raw;
    const request = parseMessages(await readJsonBody(raw, bodyLimits));
    const { generate, format } = await prepare(context, request, raw.headers, c.get('requestId'));
    if (!request.stream) {
      const [output] = await collectOutputs(context, [generate], raw.signal);
      return c.json(messageAnswer(output!, format));
    }
    const encoder = new MessageStreamEncoder(format, config.scheduler.streamInterval);
    return streamGeneration(context, [generate], raw.signal, encoder, format.id);
  });

  const counting = {
    summary: 'Count the tokens of a conversation',
    body: { AnthropicCountTokensRequest: countTokensSchema },
  };
  app.post('/v1/messages/count_tokens', describeRoute(counting), async (c) => {
    const request = parseCountTokens(await readJsonBody(c.req.raw, bodyLimits));
    resolveModel(context, request.model);
    const text = renderPromptOf(context, request);
    if (engine.tokenizer !== null) {
      checkTextLength(text, engine.tokenizer, chatPromptLimits(context, request, 'max_tokens'));
    }
    const { length } = await engine.encode(text, { addSpecialTokens: false });
    return c.json({ input_tokens: length, context_management: { original_input_tokens: length } });
  });
}

async function prepare(
  context: ServerContext,
  request: ChatCompletionRequest,
  headers: Headers,
  requestId: string,
): Promise<{ generate: GenerateRequest; format: MessageFormat }> {
  const id = `chatcmpl-${chooseRequestId(headers.get('X-Request-Id'), requestId)}`;
  const limitsThinking = canLimitThinking(context.formats.reasoning, context.engine.tokenizer);
  const limited = limitsThinking ? request : { ...request, thinking_token_budget: null };
  const { generate, model, parsing } = await prepareChat(context, limited, {
    id,
    headers,
    // vLLM runs these through its chat completions, and counts them there.
    requestType: 'chat_completions',
    maxOutputField: 'max_tokens',
    newToolCallId: () => `toolu_${randomId()}`,
  });
  const numPromptTokens = generate.promptTokenIds.length;
  const { enablePromptTokensDetails: reportCachedTokens } = context.config.frontend;
  return { generate, format: { id, model, numPromptTokens, reportCachedTokens, parsing } };
}
