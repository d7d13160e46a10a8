import { POOLING_ANSWER, VECTOR_ANSWERS, vectorAnswer } from '../answers/pooling-answer.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import {
  chooseTask,
  poolingHead,
  poolingParams,
  poolingRequests,
  preparePrompts,
} from '../pooling/pooling-requests.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { parsePooling, poolBodies } from '../protocol/pooling.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /pooling: what the model makes of a text, for whoever knows what it means. */
export function registerPooling(app: ServerApp, context: ServerContext): void {
  const description = { summary: 'Pool texts', body: poolBodies, answers: VECTOR_ANSWERS };
  app.post('/pooling', describeRoute(description), async (c) => {
    const raw = c.req.raw;
    const request = parsePooling(await readJsonBody(raw, context.config.frontend));
    const head = poolingHead(context, 'pooling', request, raw.headers, c.get('requestId'));
    const params = poolingParams(context, chooseTask(context, request.task), request);
    const prompts = await preparePrompts(context, request.input, request);
    const source = { headers: raw.headers, id: head.id };
    const requests = poolingRequests(context, prompts, params, request, source);
    const outputs = await collectPooled(context, requests, raw.signal);
    return vectorAnswer(head, outputs, request.encoding, POOLING_ANSWER);
  });
}
