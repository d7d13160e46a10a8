import { ValidationError } from '../../errors/validation-error.ts';
import { finishedResponse, newResponse, type ResponseBody, type ResponseFormat } from '../answers/response-body.ts';
import { ResponseProgress } from '../answers/response-progress.ts';
import { ApiError, notSupported } from '../errors.ts';
import { collectOutputs } from '../generation/generation.ts';
import { chatPromptLimits, type PreparedChat, prepareChat, renderPromptOf } from '../generation/prepare-chat.ts';
import { encodePrompt } from '../generation/prompt.ts';
import { type StreamEncoder, streamGeneration } from '../generation/stream-generation.ts';
import { chatOfResponses, type ResponsesRequest } from '../protocol/responses.ts';
import type { ConversationItem } from '../protocol/responses-input.ts';
import { chooseRequestId, randomId } from '../request-id.ts';
import type { ServerContext } from '../server-context.ts';
import { BackgroundResponse } from './background-response.ts';
import { conversationItem } from './conversation-item.ts';
import { fitConversation } from './fit-conversation.ts';
import { findResponse, type ResponseStore } from './response-store.ts';

/** Responses that may run in the background at a time: nobody's connection bounds their number. */
const MAX_BACKGROUND = 256;

/** One POST /v1/responses. */
export class ResponseCreation {
  readonly #id: string;

  constructor(
    private readonly context: ServerContext,
    private readonly store: ResponseStore,
    private readonly request: ResponsesRequest,
  ) {
    const id = chooseRequestId(request.request_id);
    this.#id = id.startsWith('resp_') ? id : `resp_${id}`;
  }

  async answer({ headers, signal }: Request): Promise<Response> {
    const { context, request } = this;
    this.#checkStore();
    const items = await this.#fit(this.#conversation());
    const prepared = await prepareChat(context, chatOfResponses(request, items), {
      id: this.#id,
      headers,
      requestType: 'responses',
      maxOutputField: 'max_output_tokens',
      newToolCallId: () => `call_${randomId()}`,
    });
    const format = this.#format(prepared);
    const body = newResponse(request, format);
    const progress = new ResponseProgress(body, format, context.config.scheduler.streamInterval);
    if (request.background) return this.#runInBackground(progress, prepared, items, signal);
    if (request.stream) {
      const encoder = streamEncoder(progress, () => this.#keep(body, items));
      return streamGeneration(context, [prepared.generate], signal, encoder, body.id);
    }
    const [output] = await collectOutputs(context, [prepared.generate], signal);
    finishedResponse(body, output!, format);
    this.#keep(body, items);
    return Response.json(body);
  }

  /** With several API servers, the next request may come to one that knows nothing of this response. */
  #checkStore(): void {
    const { background, previous_response_id: previous, request_id: wanted } = this.request;
    if (this.#keepsResponses) {
      if (wanted !== undefined && this.store.get(this.#id) !== null) {
        throw new ValidationError('There is a response with this id already.', 'request_id');
      }
      return;
    }
    const reason = 'responses are kept with --api-server-count 1 only';
    if (background) throw notSupported('background', reason);
    if (previous !== null) throw notSupported('previous_response_id', reason);
  }

  get #keepsResponses(): boolean {
    return this.context.config.frontend.apiServerCount === 1;
  }

  #conversation(): ConversationItem[] {
    const { previous_response_id: previousId, items } = this.request;
    const previous = previousId === null ? null : findResponse(this.store, previousId, 'previous_response_id');
    if (previous?.run?.isOver === false) {
      throw new ValidationError('The previous response has not finished.', 'previous_response_id');
    }
    const input = items.map((item, i): ConversationItem => {
      if (item.type !== 'item_reference') return item;
      const found = this.store.findItem(item.id);
      if (found !== null) return conversationItem(found);
      const message = `Item with id '${item.id.slice(0, 100)}' not found.`;
      throw new ApiError(404, 'invalid_request_error', message, `input[${i}]`);
    });
    return [...(previous?.conversation ?? []), ...input];
  }

  async #fit(items: ConversationItem[]): Promise<readonly ConversationItem[]> {
    if (this.request.truncation !== 'auto') return items;
    const { context, request } = this;
    return fitConversation(items, async (part) => {
      const chat = chatOfResponses(request, part);
      const limits = chatPromptLimits(context, chat, 'max_output_tokens');
      // Without a wish there must be room for something.
      const maxOutputTokens = Math.max(limits.maxOutputTokens, 1);
      try {
        await encodePrompt(context.engine, renderPromptOf(context, chat), false, { ...limits, maxOutputTokens });
        return true;
      } catch (error) {
        if (error instanceof ValidationError) return false;
        throw error;
      }
    });
  }

  #format({ model, parsing, generate: { params } }: PreparedChat): ResponseFormat {
    const { request, context } = this;
    const { returnTokensAsTokenIds } = context.config.frontend;
    const asTokenIds = request.return_tokens_as_token_ids ?? returnTokensAsTokenIds;
    const logprobs = { topN: request.top_logprobs ?? 0, asTokenIds, tokenizer: context.engine.tokenizer };
    return { id: this.#id, model, params, parsing, logprobs: request.includesLogprobs ? logprobs : null };
  }

  #keep(body: ResponseBody, items: readonly ConversationItem[]): void {
    if (!this.request.store || !this.#keepsResponses) return;
    this.store.put({ body, conversation: [...items, ...body.output.map(conversationItem)], run: null });
  }

  #runInBackground(
    progress: ResponseProgress,
    { generate }: PreparedChat,
    input: readonly ConversationItem[],
    signal: AbortSignal,
  ): Response | Promise<Response> {
    if (this.store.numRunning >= MAX_BACKGROUND) {
      const message = `${MAX_BACKGROUND} responses run in the background already.`;
      throw new ApiError(503, 'ServiceUnavailableError', message, null, { 'Retry-After': '1' });
    }
    const keepsEvents = this.request.stream === true;
    const response = new BackgroundResponse(progress, {
      input,
      keepsEvents,
      keepAliveMs: this.context.config.frontend.sseKeepAliveInterval * 1000,
      onEnd: (ended) => this.store.put(ended),
    });
    this.store.addRunning(response);
    try {
      response.start(this.context, generate);
    } catch (error) {
      this.store.dropRunning(response);
      throw error;
    }
    return keepsEvents ? response.follow(-1, signal) : Response.json(response.body);
  }
}

function streamEncoder(progress: ResponseProgress, onEnd: () => void): StreamEncoder {
  return {
    start: () => progress.start().join(''),
    encode: (_, output) => progress.push(output).join(''),
    end: () => {
      const events = progress.finish().join('');
      onEnd();
      return events;
    },
    fail: (error) => progress.fail(error).join(''),
  };
}
