import type { GenerateRequest, RequestOutput } from '../../engine/engine-client.ts';
import { logger } from '../../logging/logger.ts';
import { ApiError, ClientDisconnectedError, isUnexpected, toApiError } from '../errors.ts';
import type { ServerContext } from '../server-context.ts';
import { startGeneration } from './generation.ts';
import { SSE_DONE, SseWriter } from './sse-writer.ts';

const log = logger('server');

/** Writes an endpoint's events. */
export interface StreamEncoder {
  /** Events that need no output. */
  start?(): string;
  encode(requestIndex: number, output: RequestOutput): string;
  /** Events after the last output; they close the stream. */
  end(): string;
  /** Events that tell of a failure and close the stream. */
  fail(error: ApiError): string;
}

/** OpenAI's way to tell of a failure within a stream of completions. */
export function errorEvents({ info }: ApiError): string {
  return `data: ${JSON.stringify({ error: info })}\n\n${SSE_DONE}`;
}

/**
 * Runs requests and answers with their events, when the first has come or is long in coming; a failure on the way is an event too.
 *
 * @param signal aborts with the client's connection
 * @throws ClientDisconnectedError, and what `EngineClient.addRequest` throws: then there is no stream yet, and the answer has the error's status
 */
export function streamGeneration(
  context: ServerContext,
  requests: readonly GenerateRequest[],
  signal: AbortSignal,
  encoder: StreamEncoder,
  responseId: string,
): Promise<Response> {
  if (signal.aborted) throw new ClientDisconnectedError();
  let cancel = () => {};
  const fail = (error: unknown) => {
    writer.write(encoder.fail(toApiError(error, responseId, true)));
    writer.end();
  };
  const writer = new SseWriter({
    keepAliveMs: context.config.frontend.sseKeepAliveInterval * 1000,
    onCancel: () => cancel(),
    onOverflow: () => {
      cancel();
      fail(new ApiError(408, 'RequestTimeoutError', 'The client reads too slowly: too much of the answer is unread.'));
    },
  });
  cancel = startGeneration(context, requests, {
    onOutput: (index, output) => {
      const events = encoder.encode(index, output);
      if (events !== '') writer.write(events);
    },
    onEnd: () => {
      writer.write(encoder.end());
      writer.end();
    },
    onError: (error) => {
      if (isUnexpected(error)) log.error(`stream ${responseId} has failed`, { error });
      fail(error);
    },
  });
  const start = encoder.start?.() ?? '';
  if (start !== '') writer.write(start);
  signal.addEventListener('abort', () => writer.cancel(), { once: true });
  return writer.response();
}
