import type { SamplingParams } from './sampling-params.ts';
import { SAMPLING_ROW, SAMPLING_ROW_BYTES } from './sampling-row.ts';

/** Words of one row. */
export const ROW_WORDS = SAMPLING_ROW_BYTES / 4;

/** Index of a field's first word in a row. */
export function rowWord(field: keyof typeof SAMPLING_ROW): number {
  return SAMPLING_ROW[field].offset / 4;
}

/** What the sampler keeps of a request from its arrival to its end, so that a step only copies words. Made by `prepareSampling`. */
export interface SamplingRequest {
  /** A SamplingRow without slot, token counts and masked ids; list offsets are relative to `lists`. */
  readonly template: Int32Array;
  /** Allowed ids, logit bias and bad words, one behind the other. */
  readonly lists: Int32Array;
  /** Ids that must not be drawn before `minTokens` tokens are there: EOS (also with ignoreEos, as in vLLM) and stop ids. */
  readonly stopIds: Int32Array;
  readonly minTokens: number;
  /** Tokens wanted beside the sampled one: the best ones, or those of `namedIds`; -1: no log probabilities at all. */
  readonly topLogprobs: number;
  /** null: the best ones. */
  readonly namedIds: Int32Array | null;
}

/** List fields whose contents stay the same for the whole life of a request. */
export const CONSTANT_LISTS = ['allowedIds', 'logitBias', 'badWords'] as const;

const SINGLE = new Float32Array(1);
const SINGLE_BITS = new Int32Array(SINGLE.buffer);

function floatBits(value: number): number {
  SINGLE[0] = value;
  return SINGLE_BITS[0]!;
}

function biasWords(logitBias: SamplingParams['logitBias']): number[] {
  return logitBias.flatMap(([id, bias]) => [id, floatBits(bias)]);
}

function badWordsWords(sequences: readonly number[][]): number[] {
  return sequences.filter((ids) => ids.length > 0).flatMap((ids) => [ids.length, ...ids]);
}

/**
 * Resolves a request's parameters into the words that the `sample` op reads.
 * `seed` fixes every draw of the request; only its low 64 bits count.
 */
export function prepareSampling(
  params: SamplingParams,
  options: { eosTokenIds: readonly number[]; seed: bigint; vocabSize: number },
): SamplingRequest {
  const template = new Int32Array(ROW_WORDS);
  const put = (field: keyof typeof SAMPLING_ROW, value: number) => {
    template[rowWord(field)] = SAMPLING_ROW[field].type === 'f32' ? floatBits(value) : value;
  };
  put('topK', Math.max(0, params.topK));
  put('temperature', params.temperature);
  put('topP', params.topP);
  put('minP', params.minP);
  put('repetitionPenalty', params.repetitionPenalty);
  put('presencePenalty', params.presencePenalty);
  put('frequencyPenalty', params.frequencyPenalty);
  put('seedLow', Number(BigInt.asIntN(32, options.seed)));
  put('seedHigh', Number(BigInt.asIntN(32, options.seed >> 32n)));
  put('bitmask', -1);

  const contents: Record<(typeof CONSTANT_LISTS)[number], readonly number[]> = {
    allowedIds: params.allowedTokenIds ?? [],
    logitBias: biasWords(params.logitBias),
    badWords: badWordsWords(params.badWordsTokenIds),
  };
  const lists = new Int32Array(CONSTANT_LISTS.reduce((words, name) => words + contents[name].length, 0));
  let offset = 0;
  for (const name of CONSTANT_LISTS) {
    lists.set(contents[name], offset);
    template[rowWord(name)] = offset;
    template[rowWord(name) + 1] = contents[name].length;
    offset += contents[name].length;
  }

  const namedIds = params.logprobTokenIds === null ? null : Int32Array.from(params.logprobTokenIds);
  return {
    template,
    lists,
    stopIds: params.minTokens > 0 ? Int32Array.from(new Set([...options.eosTokenIds, ...params.stopTokenIds])) : NO_IDS,
    minTokens: params.minTokens,
    topLogprobs: namedIds?.length ?? topLogprobs(params.logprobs, options.vocabSize),
    namedIds,
  };
}

/** The same request where nothing but one token may be drawn. */
export function forceToken({ template, topLogprobs, namedIds }: SamplingRequest, tokenId: number): SamplingRequest {
  const forced = template.slice();
  for (const name of CONSTANT_LISTS) forced.fill(0, rowWord(name), rowWord(name) + 2);
  forced[rowWord('allowedIds') + 1] = 1;
  return { template: forced, lists: Int32Array.of(tokenId), stopIds: NO_IDS, minTokens: 0, topLogprobs, namedIds };
}

/** The same request without what takes memory of its own: lists and log probabilities. */
export function withoutLists({ template }: SamplingRequest): SamplingRequest {
  const bare = template.slice();
  for (const name of CONSTANT_LISTS) bare.fill(0, rowWord(name), rowWord(name) + 2);
  return { template: bare, lists: NO_IDS, stopIds: NO_IDS, minTokens: 0, topLogprobs: -1, namedIds: null };
}

/** The same request where nobody is told of log probabilities. */
export function withoutLogprobs(request: SamplingRequest): SamplingRequest {
  const { topLogprobs, namedIds } = request;
  return topLogprobs < 0 && namedIds === null ? request : { ...request, topLogprobs: -1, namedIds: null };
}

const NO_IDS = new Int32Array(0);

/** Number of best tokens for a `logprobs` parameter: -1 (none wanted) for null, the whole vocabulary for -1. */
export function topLogprobs(logprobs: number | null, vocabSize: number): number {
  if (logprobs === null) return -1;
  return logprobs < 0 ? vocabSize : Math.min(logprobs, vocabSize);
}
