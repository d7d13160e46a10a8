import type { BaoConfig } from '../config/bao-config.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { ReasoningFormat } from '../parsers/reasoning/reasoning-parser.ts';
import { resolveThinkingBudget } from '../parsers/reasoning/thinking-budget.ts';
import {
  resolveSamplingParams,
  type SamplingContext,
  type SamplingFields,
} from '../sampling/resolve-sampling-params.ts';
import type {
  DefaultSamplingParams,
  RequestOutputKind,
  SamplingParams as ResolvedSamplingParams,
} from '../sampling/sampling-params.ts';
import type { StructuredOutputsParams } from '../sampling/structured-outputs-params.ts';
import { structuredOutputsOf } from '../server/protocol/structured-outputs.ts';
import type { StructuredOutputsRequest } from '../structured-output/structured-outputs.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** What the output must match: exactly one of the first six. */
export interface StructuredOutputsOptions {
  /** A JSON schema, as an object or as text. */
  json?: Record<string, unknown> | string;
  regex?: string;
  choice?: string[];
  /** A grammar in Lark. */
  grammar?: string;
  jsonObject?: boolean;
  structuralTag?: string;
  disableAnyWhitespace?: boolean;
  disableAdditionalProperties?: boolean;
  whitespacePattern?: string;
}

/** vLLM's SamplingParams in camelCase. */
export interface SamplingOptions {
  /** Answers to each prompt. Default 1. */
  n?: number;
  /** Default 1; 0 is greedy. */
  temperature?: number;
  topP?: number;
  /** 0 or -1: all tokens. */
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: number | null;
  /** Default 16; null: as many as fit. */
  maxTokens?: number | null;
  minTokens?: number;
  ignoreEos?: boolean;
  stop?: string | string[];
  stopTokenIds?: number[];
  includeStopStrInOutput?: boolean;
  /** Best tokens to tell log probabilities of, beside the chosen one; -1: all; null: none at all. */
  logprobs?: number | null;
  promptLogprobs?: number | null;
  /** Tokens to tell log probabilities of instead of the best ones. */
  logprobTokenIds?: number[] | null;
  /** Token id to bias. */
  logitBias?: Record<number, number>;
  allowedTokenIds?: number[] | null;
  badWords?: string[];
  skipSpecialTokens?: boolean;
  spacesBetweenSpecialTokens?: boolean;
  structuredOutputs?: StructuredOutputsOptions | null;
  /** Parameters of custom logits processors, as `vllm_xargs` in the API. */
  extraArgs?: Record<string, unknown> | null;
  /** Most tokens of a model's thinking (`reasoningParser`), which a start mark in the prompt or the answer begins; -1: no limit. */
  thinkingTokenBudget?: number | null;
  /** Ends an answer that repeats a pattern of tokens, with the finish reason `repetition`. */
  repetitionDetection?: { maxPatternSize: number; minPatternSize?: number; minCount: number } | null;
  /** What each output of a stream carries. Default cumulative. */
  outputKind?: RequestOutputKind;
}

const DEFAULT_MAX_TOKENS = 16;

/** Options that are fields of the API under another spelling. */
const API_FIELDS = {
  n: 'n',
  temperature: 'temperature',
  topP: 'top_p',
  topK: 'top_k',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  seed: 'seed',
  minTokens: 'min_tokens',
  ignoreEos: 'ignore_eos',
  stop: 'stop',
  stopTokenIds: 'stop_token_ids',
  includeStopStrInOutput: 'include_stop_str_in_output',
  logitBias: 'logit_bias',
  allowedTokenIds: 'allowed_token_ids',
  logprobTokenIds: 'logprob_token_ids',
  badWords: 'bad_words',
  skipSpecialTokens: 'skip_special_tokens',
  spacesBetweenSpecialTokens: 'spaces_between_special_tokens',
  extraArgs: 'vllm_xargs',
} as const satisfies Partial<Record<keyof SamplingOptions, keyof SamplingFields>>;

const OTHER_OPTIONS = [
  'maxTokens',
  'logprobs',
  'promptLogprobs',
  'structuredOutputs',
  'thinkingTokenBudget',
  'repetitionDetection',
  'outputKind',
];

/** What parameters are resolved against when a request is made of them. */
export interface ResolveContext {
  config: BaoConfig;
  tokenizer: Tokenizer | null;
  promptTokenIds: Int32Array;
  /** How the model writes its thinking; null: not known. */
  reasoning: ReasoningFormat | null;
  structuredOutputs: StructuredOutputsParams | null;
  outputKind: RequestOutputKind;
}

/**
 * How tokens are chosen and when an answer ends, by the API's rules.
 *
 * @example new SamplingParams({ temperature: 0.8, maxTokens: 64, stop: ['\n'] })
 */
export class SamplingParams {
  readonly options: Readonly<SamplingOptions>;

  /** @throws ValidationError for a value out of range or an unknown name. What depends on the model and on plugins (ids, stop strings, grammars, `extraArgs`) is checked when it is used. */
  constructor(options: SamplingOptions = {}) {
    const unknown = Object.keys(options).find((name) => !(name in API_FIELDS) && !OTHER_OPTIONS.includes(name));
    if (unknown !== undefined) throw new ValidationError(`Unknown sampling parameter \`${unknown}\`.`, unknown);
    this.options = { ...options };
    const { stop: _stop, bad_words: _words, vllm_xargs: _args, ...fields } = apiFields(options);
    resolveSamplingParams(fields, { ...UNKNOWN_MODEL, ...counts(options, Number.POSITIVE_INFINITY) });
  }

  /** A model's own defaults (`generation_config.json`), which count where no parameters are given. */
  static fromDefaults(defaults: DefaultSamplingParams): SamplingParams {
    return new SamplingParams({
      temperature: defaults.temperature,
      topP: defaults.top_p,
      topK: defaults.top_k,
      minP: defaults.min_p,
      repetitionPenalty: defaults.repetition_penalty,
      maxTokens: defaults.max_tokens,
    });
  }

  /** The constraint on the output, not compiled. Throws ValidationError that names the field at fault. */
  structuredOutputsRequest(): StructuredOutputsRequest | null {
    const given = this.options.structuredOutputs ?? null;
    if (given === null) return null;
    return structuredOutputsOf({ structured_outputs: snakeCaseKeys(given) });
  }

  /** As the engine takes them. Throws ValidationError that names the first field at fault. */
  resolve(context: ResolveContext): ResolvedSamplingParams {
    const { config, tokenizer, promptTokenIds, reasoning, structuredOutputs, outputKind } = context;
    const { maxModelLen, maxTokensLimit, hf, maxLogprobs } = config.model;
    const room = Math.min(maxModelLen - promptTokenIds.length, maxTokensLimit ?? Number.POSITIVE_INFINITY);
    return resolveSamplingParams(apiFields(this.options), {
      ...counts(this.options, room),
      defaults: {},
      outputKind,
      vocabSize: hf.vocabSize,
      maxLogprobs,
      tokenizer,
      structuredOutputs,
      thinkingBudget: resolveThinkingBudget(this.options.thinkingTokenBudget, {
        ...{ format: reasoning, tokenizer, promptTokenIds },
      }),
    });
  }
}

/** Before there is a model every token id is fine. */
const UNKNOWN_MODEL = {
  defaults: {},
  outputKind: 'cumulative',
  vocabSize: Number.POSITIVE_INFINITY,
  maxLogprobs: -1,
  tokenizer: null,
} as const satisfies Partial<SamplingContext>;

function counts(options: SamplingOptions, room: number) {
  const { maxTokens = DEFAULT_MAX_TOKENS, logprobs = null, promptLogprobs = null } = options;
  return { maxTokens: Math.min(maxTokens ?? Number.POSITIVE_INFINITY, room), logprobs, promptLogprobs };
}

function apiFields(options: SamplingOptions): SamplingFields {
  const given = Object.entries(API_FIELDS).map(([option, field]) => [field, options[option as keyof SamplingOptions]]);
  const repetition_detection = options.repetitionDetection && snakeCaseKeys(options.repetitionDetection);
  return { ...Object.fromEntries(given.filter(([, value]) => value !== undefined)), repetition_detection };
}

function snakeCaseKeys(options: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).map(([name, value]) => [snakeCase(name), value]));
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
