import { listAnswer } from '../answers/pooling-answer.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import { type PoolingHead, poolingHead, poolingParams, poolingRequests } from '../pooling/pooling-requests.ts';
import { type PairScore, preparePairs, type TextPairs } from '../pooling/score-pairs.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { parseRerank, parseScore, rerankSchema, type ScoreFields, scoreBodies } from '../protocol/score.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const SCORE_PATHS = ['/score', '/v1/score'];
/** vLLM's own, Jina's and Cohere's. */
const RERANK_PATHS = ['/rerank', '/v1/rerank', '/v2/rerank'];

/** POST /score and /rerank, under all their names. */
export function registerScore(app: ServerApp, context: ServerContext): void {
  const limits = context.config.frontend;
  const scoring = { summary: 'Score pairs of texts', body: scoreBodies };
  const reranking = { summary: 'Order documents by a query', body: { RerankRequest: rerankSchema } };

  app.on('POST', SCORE_PATHS, describeRoute(scoring), async (c) => {
    const raw = c.req.raw;
    const { texts1, texts2, ...fields } = parseScore(await readJsonBody(raw, limits));
    const head = poolingHead(context, 'score', fields, raw.headers, c.get('requestId'));
    const scores = await scorePairs(context, { texts1, texts2 }, fields, head, raw);
    const data = scores.map(({ score }, index) => JSON.stringify({ index, object: 'score', score }));
    return listAnswer(head, data, totalTokens(scores));
  });

  app.on('POST', RERANK_PATHS, describeRoute(reranking), async (c) => {
    const raw = c.req.raw;
    const { query, documents, topN, ...fields } = parseRerank(await readJsonBody(raw, limits));
    const head = poolingHead(context, 'rerank', fields, raw.headers, c.get('requestId'));
    const scores = await scorePairs(context, { texts1: [query], texts2: documents }, fields, head, raw);
    const results = scores
      .map(({ score }, index) => ({
        index,
        document: { text: documents[index]!, multi_modal: null },
        relevance_score: score,
      }))
      .sort((a, b) => b.relevance_score - a.relevance_score)
      .slice(0, topN === 0 ? undefined : topN);
    const tokens = totalTokens(scores);
    const { id, model } = head;
    return c.json({ id, model, usage: { prompt_tokens: tokens, total_tokens: tokens }, results });
  });
}

async function scorePairs(
  context: ServerContext,
  pairs: TextPairs,
  fields: ScoreFields,
  { id }: PoolingHead,
  { headers, signal }: Request,
): Promise<PairScore[]> {
  const { task, prompts, scoresOf } = await preparePairs(context, pairs, fields);
  const params = poolingParams(context, task, fields);
  const requests = poolingRequests(context, prompts, params, fields, { headers, id });
  return scoresOf(await collectPooled(context, requests, signal));
}

function totalTokens(scores: readonly PairScore[]): number {
  return scores.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
}
