import { POOLING_ANSWER, vectorAnswer } from '../answers/pooling-answer.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import {
  chooseTask,
  poolingHead,
  poolingParams,
  poolingRequests,
  preparePrompts,
} from '../pooling/pooling-requests.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { parsePooling } from '../protocol/pooling.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /pooling: what the model makes of a text, for whoever knows what it means. */
export function registerPooling(app: ServerApp, context: ServerContext): void {
  app.post('/pooling', async (c) => {
    const raw = c.req.raw;
    const request = parsePooling(await readJsonBody(raw, context.config.frontend.requestBodyLimit));
    const head = poolingHead(context, 'pooling', request, raw.headers, c.get('requestId'));
    const params = poolingParams(context, chooseTask(context, request.task), request);
    const prompts = await preparePrompts(context, request.input, request);
    const source = { headers: raw.headers, id: head.id };
    const requests = poolingRequests(context, prompts, params, request, source);
    const outputs = await collectPooled(context, requests, raw.signal);
    return vectorAnswer(head, outputs, request.encoding, POOLING_ANSWER);
  });
}
