import { EMBEDDING_ANSWER, VECTOR_ANSWERS, vectorAnswer } from '../answers/pooling-answer.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import { poolingHead, poolingParams, poolingRequests, preparePrompts } from '../pooling/pooling-requests.ts';
import { embeddingBodies, parseEmbedding } from '../protocol/embedding.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /v1/embeddings. */
export function registerEmbeddings(app: ServerApp, context: ServerContext): void {
  const description = { summary: 'Embed texts', body: embeddingBodies, answers: VECTOR_ANSWERS };
  app.post('/v1/embeddings', describeRoute(description), async (c) => {
    const raw = c.req.raw;
    const request = parseEmbedding(await readJsonBody(raw, context.config.frontend));
    const head = poolingHead(context, 'embd', request, raw.headers, c.get('requestId'));
    const params = poolingParams(context, 'embed', request, request.dimensions ?? null);
    const prompts = await preparePrompts(context, request.input, request);
    const source = { headers: raw.headers, id: head.id };
    const requests = poolingRequests(context, prompts, params, request, source);
    const outputs = await collectPooled(context, requests, raw.signal);
    return vectorAnswer(head, outputs, request.encoding, EMBEDDING_ANSWER);
  });
}
