import type { GenerateRequest, RequestOutput } from '../../engine/engine-client.ts';
import { resolveSamplingParams } from '../../sampling/resolve-sampling-params.ts';
import { listAnswer } from '../answers/pooling-answer.ts';
import { collectOutputs, engineRequestId, logRequest, placement } from '../generation/generation.ts';
import { promptFromIds } from '../generation/prompt.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import {
  type GenerativeScoringRequest,
  generativeScoringSchema,
  parseGenerativeScoring,
  type ScoringText,
} from '../protocol/generative-scoring.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { chooseRequestId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const GENERATIVE_SCORING = {
  summary: 'How probable a token is behind a query and each of several items',
  body: { GenerativeScoringRequest: generativeScoringSchema },
} as const;

/** POST /generative_scoring: the probability of the first label as the token behind each prompt. */
export function registerGenerativeScoring(app: ServerApp, context: ServerContext): void {
  const { frontend, model } = context.config;
  app.post('/generative_scoring', describeRoute(GENERATIVE_SCORING), async (c) => {
    const raw = c.req.raw;
    const request = parseGenerativeScoring(await readJsonBody(raw, frontend), model.hf.vocabSize);
    const { name, lora } = resolveModel(context, request.model);
    const id = `generative-scoring-${chooseRequestId(raw.headers.get('X-Request-Id'), request.request_id, c.get('requestId'))}`;
    const place = placement(context, request, raw.headers, lora);
    const params = samplingParams(context, request);
    const prompts = await scoringPrompts(context, request);
    const generate: GenerateRequest[] = prompts.map((promptTokenIds) => ({
      requestId: engineRequestId(id),
      promptTokenIds,
      params,
      ...place,
    }));
    for (const each of generate) logRequest(context, each, null);
    const outputs = await collectOutputs(context, generate, raw.signal);
    const data = outputs.map((output, index) =>
      JSON.stringify({ index, object: 'score', score: scoreOf(output, request) }),
    );
    const head = { id, created: Math.floor(Date.now() / 1000), model: name };
    const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
    const completionTokens = outputs.reduce((sum, { outputs: [first] }) => sum + first!.tokenIds.length, 0);
    return listAnswer(head, data, promptTokens, completionTokens);
  });
}

/** One token, whichever: what counts is how probable the labels are. */
function samplingParams(context: ServerContext, { label_token_ids: labels }: GenerativeScoringRequest) {
  const { hf, maxLogprobs } = context.config.model;
  return resolveSamplingParams(
    { logprob_token_ids: labels },
    {
      defaults: {},
      maxTokens: 1,
      logprobs: labels.length,
      promptLogprobs: null,
      outputKind: 'final-only',
      vocabSize: hf.vocabSize,
      maxLogprobs,
      tokenizer: context.engine.tokenizer,
    },
  );
}

/** The ids of query and item, tokenized apart, one behind the other; what leaves no room for a token is cut off at the end. */
async function scoringPrompts(context: ServerContext, request: GenerativeScoringRequest): Promise<Int32Array[]> {
  const { maxModelLen, hf } = context.config.model;
  const limits = {
    maxModelLen,
    maxOutputTokens: 1,
    maxOutputField: 'max_tokens',
    truncate: -1,
    truncationSide: 'right',
  } as const;
  const query = await idsOf(context, request.query, request.add_special_tokens);
  return Promise.all(
    request.items.map(async (item) => {
      const ids = await idsOf(context, item, false);
      return promptFromIds(request.item_first ? [...ids, ...query] : [...query, ...ids], hf.vocabSize, limits);
    }),
  );
}

async function idsOf(
  { engine }: ServerContext,
  text: ScoringText,
  addSpecialTokens: boolean,
): Promise<ArrayLike<number> & Iterable<number>> {
  return typeof text === 'string' ? engine.encode(text, { addSpecialTokens }) : text;
}

/** The first label's probability: among the labels, or among all tokens. */
function scoreOf(
  { outputs: [output] }: RequestOutput,
  { label_token_ids: labels, apply_softmax: amongLabels }: GenerativeScoringRequest,
): number {
  const logprobs = new Map(output!.logprobs?.[0]?.map(({ tokenId, logprob }) => [tokenId, logprob]));
  const known = [...new Set(labels)].map((id) => logprobs.get(id)!);
  if (!amongLabels) return Math.exp(known[0]!);
  const most = Math.max(...known);
  const sum = known.reduce((total, logprob) => total + Math.exp(logprob - most), 0);
  return Math.exp(known[0]! - most) / sum;
}
