import type { GenerateRequest, RequestOutput } from '../../engine/engine-client.ts';
import { logger } from '../../logging/logger.ts';
import { ApiError, isUnexpected, toApiError } from '../errors.ts';
import type { ServerContext } from '../server-context.ts';
import { startGeneration } from './generation.ts';
import { SSE_DONE, SseWriter, sseResponse } from './sse-writer.ts';

const log = logger('server');

/** Writes an endpoint's events. */
export interface StreamEncoder {
  encode(requestIndex: number, output: RequestOutput): string;
  end(): string;
}

/**
 * Runs requests and answers with their events; a failure on the way is an event with `error`, and every stream closes with [DONE].
 *
 * @param signal aborts with the client's connection
 * @throws what `EngineClient.addRequest` throws: then there is no stream yet, and the answer has the error's status
 */
export function streamGeneration(
  context: ServerContext,
  requests: readonly GenerateRequest[],
  signal: AbortSignal,
  encoder: StreamEncoder,
  responseId: string,
): Response {
  let cancel = () => {};
  const fail = (error: unknown) => {
    const { info } = toApiError(error, responseId, true);
    writer.write(`data: ${JSON.stringify({ error: info })}\n\n${SSE_DONE}`);
    writer.end();
  };
  const writer = new SseWriter({
    onCancel: () => cancel(),
    onOverflow: () => {
      cancel();
      fail(new ApiError(408, 'RequestTimeoutError', 'The client reads too slowly: too much of the answer is unread.'));
    },
  });
  cancel = startGeneration(context, requests, signal, {
    onOutput: (index, output) => {
      const events = encoder.encode(index, output);
      if (events !== '') writer.write(events);
    },
    onEnd: () => {
      writer.write(encoder.end() + SSE_DONE);
      writer.end();
    },
    onError: (error) => {
      if (isUnexpected(error)) log.error(`stream ${responseId} has failed`, { error });
      fail(error);
    },
  });
  signal.addEventListener('abort', () => writer.cancel(), { once: true });
  return sseResponse(writer);
}
