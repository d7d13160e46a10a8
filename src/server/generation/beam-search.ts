import { beamSearch } from '../../engine/beam-search.ts';
import type { GenerateRequest, RequestOutput } from '../../engine/engine-client.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import type { SamplingParams } from '../../sampling/sampling-params.ts';
import type { GenerationFields } from '../protocol/generation-fields.ts';
import type { ServerContext } from '../server-context.ts';
import { startDeadline } from './deadline.ts';
import { collectOutputs, engineRequestId } from './generation.ts';

/** Log probabilities that a search asks for at each step; they count against `--max-logprobs`. */
export function beamLogprobs(n: number | null | undefined, topLogprobs: number | null | undefined): number {
  return Math.max(2 * (n ?? 1), topLogprobs ?? 0);
}

/**
 * A search looks at plain probabilities: what would change them or end an answer elsewhere is refused. temperature, top_p, top_k, min_p and seed
 * have no effect, as in vLLM; nothing is drawn.
 *
 * @param params the request's, resolved
 * @throws ValidationError that names the field
 */
export function checkBeamSearch(request: GenerationFields, params: SamplingParams): void {
  if (request.stream) throw new ValidationError('Streaming is not yet supported with beam search', 'stream');
  const changed: [field: string, isSet: boolean][] = [
    ['structured_outputs', params.structuredOutputs !== null],
    ['prompt_logprobs', params.promptLogprobs !== null],
    ['stop', params.stop.length > 0],
    ['stop_token_ids', params.stopTokenIds.length > 0],
    ['min_tokens', params.minTokens > 0],
    ['logit_bias', params.logitBias.length > 0],
    ['allowed_token_ids', params.allowedTokenIds !== null],
    ['bad_words', params.badWordsTokenIds.length > 0],
    // A repetition penalty may be the model's own default, which a search leaves aside.
    ['repetition_penalty', request.repetition_penalty != null && params.repetitionPenalty !== 1],
    ['presence_penalty', params.presencePenalty !== 0],
    ['frequency_penalty', params.frequencyPenalty !== 0],
    ['vllm_xargs', params.extraArgs !== null],
    ['thinking_token_budget', params.thinkingBudget !== null],
    ['repetition_detection', params.repetitionDetection !== null],
  ];
  const field = changed.find(([, isSet]) => isSet)?.[0];
  if (field !== undefined) throw new ValidationError(`\`${field}\` can't be used with beam search.`, field);
}

/**
 * The best `params.n` answers to each prompt, in their order; all prompts are searched at once.
 *
 * @throws ClientDisconnectedError when `signal` aborts, and what the engine reports; the other searches end then
 */
export async function collectBeams(
  context: ServerContext,
  requests: readonly GenerateRequest[],
  lengthPenalty: number | undefined,
  signal: AbortSignal,
): Promise<RequestOutput[]> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  // Of the whole search; each of its steps is a generation of its own.
  const exceeded = Promise.withResolvers<never>();
  const callOff = startDeadline(context, exceeded.reject);
  try {
    const searches = requests.map((request) => searchOne(context, request, lengthPenalty ?? 1, either));
    return await Promise.race([Promise.all(searches), exceeded.promise]);
  } catch (error) {
    failed.abort();
    throw error;
  } finally {
    callOff();
  }
}

async function searchOne(
  context: ServerContext,
  request: GenerateRequest,
  lengthPenalty: number,
  signal: AbortSignal,
): Promise<RequestOutput> {
  const { n, logprobs, maxTokens, ignoreEos, skipSpecialTokens } = request.params;
  const output = await beamSearch(
    request.promptTokenIds,
    { beamWidth: n, numLogprobs: logprobs!, maxTokens, lengthPenalty, ignoreEos, skipSpecialTokens },
    {
      eosTokenIds: context.config.model.eosTokenIds,
      tokenizer: context.engine.tokenizer,
      step: (steps) => {
        const requestId = () => engineRequestId(request.requestId);
        const generate = steps.map((step) => ({ ...request, ...step, requestId: requestId() }));
        return collectOutputs(context, generate, signal);
      },
    },
  );
  return { ...output, requestId: request.requestId };
}
