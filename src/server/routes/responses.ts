import * as v from 'valibot';
import { ApiError } from '../errors.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { boolean, integer } from '../protocol/fields.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { parseResponses, responsesSchema } from '../protocol/responses.ts';
import { ResponseCreation } from '../responses/response-creation.ts';
import { findResponse, ResponseStore } from '../responses/response-store.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const followQuery = v.object({ stream: v.optional(boolean), starting_after: v.optional(integer) });

/** POST /v1/responses, GET and DELETE /v1/responses/ID, POST /v1/responses/ID/cancel. */
export function registerResponses(app: ServerApp, context: ServerContext): void {
  const store = new ResponseStore();

  const creation = {
    summary: 'Answer a conversation, and keep the answer',
    body: { ResponsesRequest: responsesSchema },
    answers: ['application/json', 'text/event-stream'],
  } as const;
  app.post('/v1/responses', describeRoute(creation), async (c) => {
    const raw = c.req.raw;
    const request = parseResponses(await readJsonBody(raw, context.config.frontend));
    return new ResponseCreation(context, store, request).answer(raw);
  });

  const retrieval = {
    summary: 'A response that is kept, or its events',
    query: followQuery,
    answers: ['application/json', 'text/event-stream'],
  } as const;
  app.get('/v1/responses/:id', describeRoute(retrieval), async (c) => {
    const stored = findResponse(store, c.req.param('id'));
    const { stream, starting_after: startingAfter } = c.req.query();
    if (stream === undefined || stream === 'false') return c.json(stored.body);
    if (stored.run?.keepsEvents !== true) {
      throw invalid('Only a response that was created with background and stream can be streamed.', 'stream');
    }
    if (startingAfter !== undefined && !/^\d{1,15}$/.test(startingAfter)) {
      throw invalid('`starting_after` must be the sequence_number of an event.', 'starting_after');
    }
    return stored.run.follow(Number(startingAfter ?? -1), c.req.raw.signal);
  });

  // Not in vLLM, which keeps nothing by default; OpenAI's clients have it.
  app.delete('/v1/responses/:id', describeRoute({ summary: 'Forget a response that is kept' }), (c) => {
    const { body, run } = findResponse(store, c.req.param('id'));
    if (run?.isOver === false) run.cancel();
    store.delete(body.id);
    return c.json({ id: body.id, object: 'response', deleted: true });
  });

  app.post(
    '/v1/responses/:id/cancel',
    describeRoute({ summary: 'End a response that runs in the background' }),
    (c) => {
      const stored = findResponse(store, c.req.param('id'));
      if (stored.run === null || stored.run.isOver)
        throw invalid('Cannot cancel a synchronous response.', 'response_id');
      stored.run.cancel();
      return c.json(stored.body);
    },
  );
}

function invalid(message: string, param: string): ApiError {
  return new ApiError(400, 'invalid_request_error', message, param);
}
