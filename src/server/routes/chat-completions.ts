import type { GenerateRequest, RequestOutput } from '../../engine/engine-client.ts';
import { jsonAnswer } from '../answers/answer-head.ts';
import { type ChatFormat, chatAnswerJson, chatBatchAnswerJson } from '../answers/chat-answer.ts';
import { ChatStreamEncoder } from '../answers/chat-stream.ts';
import { streamUsage } from '../answers/usage.ts';
import { collectBeams } from '../generation/beam-search.ts';
import { collectOutputs } from '../generation/generation.ts';
import type { OutputParsing } from '../generation/output-parsing.ts';
import { prepareChat } from '../generation/prepare-chat.ts';
import { streamGeneration } from '../generation/stream-generation.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import {
  type ChatCompletionRequest,
  chatCompletionBatchSchema,
  chatCompletionSchema,
  parseChatCompletion,
  parseChatCompletionBatch,
} from '../protocol/chat-completion.ts';
import { contentText } from '../protocol/chat-messages.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { chooseRequestId, randomId } from '../request-id.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const CHAT = {
  summary: 'Answer a conversation',
  body: { ChatCompletionRequest: chatCompletionSchema },
  answers: ['application/json', 'text/event-stream'],
} as const;

const BATCH = {
  summary: 'Answer several conversations',
  body: { BatchChatCompletionRequest: chatCompletionBatchSchema },
};

/** POST /v1/chat/completions, and /v1/chat/completions/batch for several conversations in one request. */
export function registerChatCompletions(app: ServerApp, context: ServerContext): void {
  app.post('/v1/chat/completions', describeRoute(CHAT), async (c) => {
    const raw = c.req.raw;
    const request = parseChatCompletion(await readJsonBody(raw, context.config.frontend));
    const { generate, format } = await prepare(context, request, raw.headers, c.get('requestId'));
    if (!request.stream) {
      const [output] = await collect(context, request, [generate], raw.signal);
      return jsonAnswer(chatAnswerJson(output!, format));
    }
    const usage = streamUsage(request.stream_options, context.config.frontend.enableForceIncludeUsage);
    const interval = Math.max(request.stream_interval ?? 1, context.config.scheduler.streamInterval);
    const encoder = new ChatStreamEncoder(format, usage, interval);
    return streamGeneration(context, [generate], raw.signal, encoder, format.head.id);
  });

  app.post('/v1/chat/completions/batch', describeRoute(BATCH), async (c) => {
    const raw = c.req.raw;
    const requests = parseChatCompletionBatch(await readJsonBody(raw, context.config.frontend));
    const requestId = c.get('requestId');
    const prepared = await Promise.all(requests.map((request) => prepare(context, request, raw.headers, requestId)));
    const generate = prepared.map((each) => each.generate);
    const outputs = await collect(context, requests[0]!, generate, raw.signal);
    return jsonAnswer(
      chatBatchAnswerJson(
        outputs,
        prepared.map((each) => each.format),
      ),
    );
  });
}

function collect(
  context: ServerContext,
  request: ChatCompletionRequest,
  generate: readonly GenerateRequest[],
  signal: AbortSignal,
): Promise<RequestOutput[]> {
  return request.use_beam_search
    ? collectBeams(context, generate, request.length_penalty, signal)
    : collectOutputs(context, generate, signal);
}

async function prepare(
  context: ServerContext,
  request: ChatCompletionRequest,
  headers: Headers,
  requestId: string,
): Promise<{ generate: GenerateRequest; format: ChatFormat }> {
  const id = `chatcmpl-${chooseRequestId(headers.get('X-Request-Id'), request.request_id, requestId)}`;
  const { generate, model, promptText, parsing } = await prepareChat(context, request, {
    id,
    headers,
    requestType: 'chat_completions',
    maxOutputField: request.max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens',
    newToolCallId: () => `chatcmpl-tool-${randomId()}`,
  });
  return { generate, format: answerFormat(context, request, { id, model, n: generate.params.n, promptText, parsing }) };
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
    logprobs: request.logprobs
      ? {
          topN: request.logprob_token_ids == null ? (request.top_logprobs ?? 0) : -1,
          asTokenIds,
          tokenizer: engine.tokenizer,
        }
      : null,
    returnTokenIds: request.return_token_ids ?? false,
    promptText: request.return_prompt_text ? promptText : null,
    reportCachedTokens: frontend.enablePromptTokensDetails,
    parsing,
  };
}
