import type { StructuredOutputsParams } from './structured-outputs-params.ts';

/** How a request's tokens are chosen and when it ends. vLLM's SamplingParams, resolved: every default is filled in, so nothing is undefined. */
export interface SamplingParams {
  n: number;
  /** 0 is greedy. */
  temperature: number;
  topP: number;
  /** 0: all. */
  topK: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  /** null: a seed is drawn when the request enters the engine. */
  seed: number | null;
  maxTokens: number;
  minTokens: number;
  ignoreEos: boolean;
  stop: string[];
  stopTokenIds: number[];
  includeStopStrInOutput: boolean;
  /** Number of best tokens with log probabilities; null: none, 0: only the sampled one's, -1: the whole vocabulary. */
  logprobs: number | null;
  promptLogprobs: number | null;
  /** Tokens whose log probabilities are given instead of the best ones', with `logprobs`; null: the best ones. At least one, none twice. */
  logprobTokenIds: number[] | null;
  /** Token id to bias. */
  logitBias: [id: number, bias: number][];
  allowedTokenIds: number[] | null;
  /** Token ids of each bad word, one or more spellings of it. */
  badWordsTokenIds: number[][];
  /** What the output must match; null: nothing. */
  structuredOutputs: StructuredOutputsParams | null;
  /** Parameters of custom logits processors (`vllm_xargs`), JSON values; null: none. */
  extraArgs: Readonly<Record<string, unknown>> | null;
  /** Names of the custom logits processors that apply to the request. */
  logitsProcessors: string[];
  /** null: the model thinks as long as it likes, or does not think. */
  thinkingBudget: ThinkingBudgetParams | null;
  /** null: repetitions end nothing. */
  repetitionDetection: RepetitionDetectionParams | null;
  skipSpecialTokens: boolean;
  spacesBetweenSpecialTokens: boolean;
  /** False: text is not wanted (`--skip-tokenizer-init`). */
  detokenize: boolean;
  outputKind: RequestOutputKind;
}

/** How many tokens a model may think, and the token sequences around its thinking. */
export interface ThinkingBudgetParams {
  maxTokens: number;
  /** The output starts inside the thinking; else only a start mark begins it. */
  startsInside: boolean;
  /** Tokens of the thinking that the prompt has already. */
  numUsed: number;
  starts: number[][];
  /** Each of them ends the thinking; the first is forced when the budget is used up. */
  ends: number[][];
}

/** An output that ends with a pattern of `minPatternSize` to `maxPatternSize` tokens, `minCount` times in a row, goes no further. */
export interface RepetitionDetectionParams {
  maxPatternSize: number;
  minPatternSize: number;
  minCount: number;
}

/** What an output carries: all so far, only what is new, or nothing before the end. */
export type RequestOutputKind = 'cumulative' | 'delta' | 'final-only';

export const DEFAULT_SAMPLING_PARAMS: SamplingParams = {
  n: 1,
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: null,
  maxTokens: 16,
  minTokens: 0,
  ignoreEos: false,
  stop: [],
  stopTokenIds: [],
  includeStopStrInOutput: false,
  logprobs: null,
  promptLogprobs: null,
  logprobTokenIds: null,
  logitBias: [],
  allowedTokenIds: null,
  badWordsTokenIds: [],
  structuredOutputs: null,
  extraArgs: null,
  logitsProcessors: [],
  thinkingBudget: null,
  repetitionDetection: null,
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: true,
  detokenize: true,
  outputKind: 'cumulative',
};

/** Defaults for what a request leaves out, in the API's names. */
export interface DefaultSamplingParams {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  max_tokens?: number;
}
