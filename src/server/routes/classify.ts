import { listAnswer, numPromptTokens } from '../answers/pooling-answer.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import {
  poolingConfigOf,
  poolingHead,
  poolingParams,
  poolingRequests,
  preparePrompts,
} from '../pooling/pooling-requests.ts';
import { classificationBodies, parseClassification } from '../protocol/classification.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /classify. */
export function registerClassify(app: ServerApp, context: ServerContext): void {
  const { labels } = poolingConfigOf(context);
  const description = { summary: 'Classify texts', body: classificationBodies };
  app.post('/classify', describeRoute(description), async (c) => {
    const raw = c.req.raw;
    const request = parseClassification(await readJsonBody(raw, context.config.frontend));
    const head = poolingHead(context, 'classify', request, raw.headers, c.get('requestId'));
    const params = poolingParams(context, 'classify', request);
    const prompts = await preparePrompts(context, request.input, request);
    const source = { headers: raw.headers, id: head.id };
    const requests = poolingRequests(context, prompts, params, request, source);
    const outputs = await collectPooled(context, requests, raw.signal);
    const data = outputs.map(({ output }, index) => {
      const probs = [...output.values];
      return JSON.stringify({ index, label: labels[argmax(probs)] ?? null, probs, num_classes: probs.length });
    });
    return listAnswer(head, data, numPromptTokens(outputs));
  });
}

/** Index of the greatest value, the first of equals. */
function argmax(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}
