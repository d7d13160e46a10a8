import {
  PythonFloat,
  parameterError,
  pythonFloat,
  pythonInt,
  pythonList,
  pythonQuote,
} from '../errors/parameter-error.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { logitsProcessors } from './logits-processor.ts';
import type {
  DefaultSamplingParams,
  RepetitionDetectionParams,
  RequestOutputKind,
  SamplingParams,
  ThinkingBudgetParams,
} from './sampling-params.ts';
import { SAMPLING_RANGES } from './sampling-ranges.ts';
import type { StructuredOutputsParams } from './structured-outputs-params.ts';

/** The sampling fields of a request, in the API's names; null and undefined mean that the request leaves them to the server. */
export interface SamplingFields {
  n?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  seed?: number | null;
  min_tokens?: number | null;
  ignore_eos?: boolean | null;
  stop?: string | string[] | null;
  stop_token_ids?: number[] | null;
  include_stop_str_in_output?: boolean | null;
  logit_bias?: Record<string, number> | null;
  allowed_token_ids?: number[] | null;
  logprob_token_ids?: number[] | null;
  bad_words?: string[] | null;
  skip_special_tokens?: boolean | null;
  spaces_between_special_tokens?: boolean | null;
  vllm_xargs?: Record<string, unknown> | null;
  repetition_detection?: RepetitionDetectionFields | null;
}

/** Counts of tokens; each is 0 where it is left out. */
export interface RepetitionDetectionFields {
  max_pattern_size?: number;
  min_pattern_size?: number;
  min_count?: number;
}

/** What the fields are resolved against. */
export interface SamplingContext {
  /** The model's defaults, for what the request leaves out. */
  defaults: DefaultSamplingParams;
  maxTokens: number;
  logprobs: number | null;
  promptLogprobs: number | null;
  outputKind: RequestOutputKind;
  vocabSize: number;
  /** `--max-logprobs`; -1: the whole vocabulary. */
  maxLogprobs: number;
  /** null with `--skip-tokenizer-init`. */
  tokenizer: Tokenizer | null;
  /** Checked already. Default: no constraint. */
  structuredOutputs?: StructuredOutputsParams | null;
  /** Checked already. Default: no limit. */
  thinkingBudget?: ThinkingBudgetParams | null;
}

/** Below it, logits divided by the temperature overflow; vLLM raises what is above zero to it. */
const MIN_TEMPERATURE = 1e-2;
/** Of one request (VLLM_MAX_N_SEQUENCES). */
export const MAX_SEQUENCES = 16384;
/** Tokens that `logprob_token_ids` may name, as in vLLM. */
export const MAX_NAMED_LOGPROBS = 128;
/** Token sequences, both spellings of a word counted (VLLM_MAX_NUM_BAD_WORDS). */
const MAX_BAD_WORDS = 128;
/** They are tokenized in the thread that serves. */
const MAX_BAD_WORD_CHARACTERS = 1024;

/**
 * Fills in every default and checks the values, in vLLM's order and with its messages.
 *
 * @throws ValidationError that names the first field at fault
 */
export function resolveSamplingParams(fields: SamplingFields, context: SamplingContext): SamplingParams {
  const { defaults } = context;
  const params: SamplingParams = {
    n: fields.n ?? 1,
    temperature: raiseTemperature(fields.temperature ?? defaults.temperature ?? 1),
    topP: fields.top_p ?? defaults.top_p ?? 1,
    topK: fields.top_k ?? defaults.top_k ?? 0,
    minP: fields.min_p ?? defaults.min_p ?? 0,
    repetitionPenalty: fields.repetition_penalty ?? defaults.repetition_penalty ?? 1,
    presencePenalty: fields.presence_penalty ?? 0,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    seed: fields.seed === -1 ? null : (fields.seed ?? null),
    maxTokens: context.maxTokens,
    minTokens: fields.min_tokens ?? 0,
    ignoreEos: fields.ignore_eos ?? false,
    stop: typeof fields.stop === 'string' ? [fields.stop] : (fields.stop ?? []),
    stopTokenIds: distinct(fields.stop_token_ids),
    includeStopStrInOutput: fields.include_stop_str_in_output ?? false,
    logprobs: context.logprobs ?? (fields.logprob_token_ids == null ? null : 0),
    promptLogprobs: context.promptLogprobs,
    logprobTokenIds: fields.logprob_token_ids == null ? null : distinct(fields.logprob_token_ids),
    logitBias: fields.logit_bias == null ? [] : resolveLogitBias(fields.logit_bias),
    allowedTokenIds: fields.allowed_token_ids ?? null,
    badWordsTokenIds: [],
    structuredOutputs: context.structuredOutputs ?? null,
    extraArgs: fields.vllm_xargs == null ? null : resolveExtraArgs(fields.vllm_xargs),
    logitsProcessors: [],
    thinkingBudget: behindThinking(context) ? (context.thinkingBudget ?? null) : null,
    repetitionDetection:
      fields.repetition_detection == null ? null : resolveRepetitionDetection(fields.repetition_detection),
    skipSpecialTokens: fields.skip_special_tokens ?? true,
    spacesBetweenSpecialTokens: fields.spaces_between_special_tokens ?? true,
    detokenize: context.tokenizer !== null,
    outputKind: context.outputKind,
  };
  const badWords = distinct(fields.bad_words);
  checkRanges(params);
  checkStops(params, badWords);
  if (params.topK === -1 || params.topK >= context.vocabSize) params.topK = 0;
  if (params.temperature === 0) makeGreedy(params);
  checkLogprobs(params, context);
  checkTokenIds(params, context.vocabSize);
  params.badWordsTokenIds = tokenizeBadWords(badWords, context.tokenizer);
  params.logitsProcessors = logitsProcessors.resolve(params);
  return params;
}

function distinct<T>(list: readonly T[] | null | undefined): T[] {
  return list == null || list.length === 0 ? [] : [...new Set(list)];
}

function raiseTemperature(temperature: number): number {
  return temperature > 0 && temperature < MIN_TEMPERATURE ? MIN_TEMPERATURE : temperature;
}

/** Greedy sampling looks at nothing but the best token. */
function makeGreedy(params: SamplingParams): void {
  params.topP = 1;
  params.topK = 0;
  params.minP = 0;
  if (params.n > 1) throw new ValidationError(`n must be 1 when using greedy sampling, got ${params.n}.`);
}

function resolveLogitBias(bias: Record<string, number>): [number, number][] {
  const entries = Object.entries(bias);
  const unusable = entries.map(([key]) => key).filter((key) => !/^\s*[+-]?\d+\s*$/.test(key));
  if (unusable.length > 0) {
    throw parameterError(
      `logit_bias contains key(s) that cannot be converted to integer token IDs: ${pythonList(unusable)}`,
      'logit_bias',
      unusable,
    );
  }
  return [...new Map(entries.map(([key, value]) => [Number(key), Math.min(100, Math.max(-100, value))]))];
}

/** `session_id` is for vLLM's own routing, and has no meaning to a processor. */
function resolveExtraArgs({ session_id: _session, ...args }: Record<string, unknown>): SamplingParams['extraArgs'] {
  return Object.keys(args).length === 0 ? null : args;
}

/** A constraint on the output from its first token on leaves no room for thinking. */
function behindThinking({ structuredOutputs }: SamplingContext): boolean {
  return structuredOutputs == null || structuredOutputs.startsAfter !== null;
}

/** Patterns of any size up to the largest are looked for at every token. */
const MAX_PATTERN_SIZE = 2048;

function resolveRepetitionDetection(fields: RepetitionDetectionFields): RepetitionDetectionParams | null {
  const { max_pattern_size: max = 0, min_pattern_size: min = 0, min_count: minCount = 0 } = fields;
  const fail = (sentence: string) => {
    throw new ValidationError(sentence, 'repetition_detection');
  };
  if (max < 0 || min < 0 || min > max) {
    fail(
      'max_pattern_size, min_pattern_size must be >=0, with min_pattern_size <= max_pattern_size. Set both to 0 to disable repetitive pattern detection.',
    );
  }
  if (max > MAX_PATTERN_SIZE) fail(`max_pattern_size must be at most ${MAX_PATTERN_SIZE}, got ${pythonInt(max)}.`);
  if (max > 0 && minCount < 2) {
    fail(
      'min_count must be >= 2 to detect repetitive patterns in engine output. If you do not wish to detect repetitive patterns, set max_pattern_size to 0.',
    );
  }
  return max === 0 ? null : { maxPatternSize: max, minPatternSize: Math.max(1, min), minCount };
}

function checkRanges(params: SamplingParams): void {
  if (params.n < 1) throw new ValidationError(`n must be at least 1, got ${pythonInt(params.n)}.`);
  if (params.n > MAX_SEQUENCES) {
    throw new ValidationError(`n must be at most ${MAX_SEQUENCES}, got ${pythonInt(params.n)}.`);
  }
  checkPenalty('presence_penalty', params.presencePenalty);
  checkPenalty('frequency_penalty', params.frequencyPenalty);
  checkRepetitionPenalty(params.repetitionPenalty);
  checkTemperature(params.temperature);
  if (!SAMPLING_RANGES.top_p.accepts(params.topP)) throw floatError('top_p', 'must be in (0, 1]', params.topP);
  if (!SAMPLING_RANGES.top_k.accepts(params.topK)) {
    throw new ValidationError(`top_k must be 0 (disable), or at least 1, got ${pythonInt(params.topK)}.`);
  }
  if (!SAMPLING_RANGES.min_p.accepts(params.minP)) {
    throw new ValidationError(`min_p must be in [0, 1], got ${pythonFloat(params.minP)}.`);
  }
  checkLengths(params);
}

function checkPenalty(name: string, value: number): void {
  if (!(value >= -2 && value <= 2)) throw new ValidationError(`${name} must be in [-2, 2], got ${pythonFloat(value)}.`);
}

function checkRepetitionPenalty(penalty: number): void {
  if (SAMPLING_RANGES.repetition_penalty.accepts(penalty)) return;
  const rule = Number.isFinite(penalty) ? 'greater than zero' : 'a finite number';
  throw new ValidationError(`repetition_penalty must be ${rule}, got ${pythonFloat(penalty)}.`);
}

function checkTemperature(temperature: number): void {
  if (SAMPLING_RANGES.temperature.accepts(temperature)) return;
  if (!Number.isFinite(temperature)) throw floatError('temperature', 'must be a finite number', temperature);
  throw floatError('temperature', temperature < 0 ? 'must be non-negative' : 'must be in [0, 2]', temperature);
}

function floatError(name: string, rule: string, value: number): ValidationError {
  return parameterError(`${name} ${rule}, got ${pythonFloat(value)}.`, name, new PythonFloat(value));
}

function checkLengths({ maxTokens, minTokens, logprobs, promptLogprobs }: SamplingParams): void {
  // In a program Infinity is as many as fit.
  if (maxTokens !== Number.POSITIVE_INFINITY && !SAMPLING_RANGES.max_tokens.accepts(maxTokens)) {
    throw parameterError(`max_tokens must be at least 1, got ${pythonInt(maxTokens)}.`, 'max_tokens', maxTokens);
  }
  if (minTokens < 0) {
    throw new ValidationError(`min_tokens must be greater than or equal to 0, got ${pythonInt(minTokens)}.`);
  }
  if (minTokens > maxTokens) {
    throw new ValidationError(
      `min_tokens must be less than or equal to max_tokens=${maxTokens}, got ${pythonInt(minTokens)}.`,
    );
  }
  checkCount('logprobs', logprobs);
  checkCount('prompt_logprobs', promptLogprobs);
}

function checkCount(name: string, value: number | null): void {
  if (value !== null && value < -1) {
    throw parameterError(`${name} must be non-negative or -1, got ${pythonInt(value)}.`, name, value);
  }
}

function checkStops(params: SamplingParams, badWords: string[]): void {
  if (params.stop.includes('')) throw new ValidationError('stop cannot contain an empty string.');
  if (params.stop.length > 0 && !params.detokenize) {
    throw new ValidationError(
      'stop strings need a tokenizer, and this server runs with --skip-tokenizer-init.',
      'stop',
    );
  }
  if (badWords.includes('')) {
    throw new ValidationError(`bad_words cannot contain an empty string. Got bad_words=${pythonList(badWords)}`);
  }
}

function checkLogprobs(params: SamplingParams, context: SamplingContext): void {
  const max = context.maxLogprobs === -1 ? context.vocabSize : context.maxLogprobs;
  const check = (kind: string, name: string, value: number | null) => {
    const requested = value === -1 ? context.vocabSize : (value ?? 0);
    if (requested <= max) return;
    const sentence = `Requested ${kind} logprobs of ${pythonInt(requested)}, which is greater than max allowed: ${max}`;
    throw parameterError(sentence, name, requested);
  };
  if (params.logprobTokenIds === null) check('sample', 'logprobs', params.logprobs);
  check('prompt', 'prompt_logprobs', params.promptLogprobs);
  const named = params.logprobTokenIds?.length ?? 0;
  if (named > MAX_NAMED_LOGPROBS) {
    const sentence = `Requested logprob_token_ids of length ${named}, which is greater than max allowed: ${MAX_NAMED_LOGPROBS}`;
    throw parameterError(sentence, 'logprob_token_ids', named);
  }
}

function checkTokenIds(params: SamplingParams, vocabSize: number): void {
  const outside = (ids: number[]) => ids.filter((id) => id < 0 || id >= vocabSize);
  const check = (name: string, ids: number[]) => {
    const unknown = outside(ids);
    if (unknown.length === 0) return;
    const sentence = `token_id(s) ${pythonList(unknown)} in ${name} contain out-of-vocab token ids. Vocabulary size: ${vocabSize}`;
    throw parameterError(sentence, name, unknown);
  };
  check(
    'logit_bias',
    params.logitBias.map(([id]) => id),
  );
  check('stop_token_ids', params.stopTokenIds);
  check('logprob_token_ids', params.logprobTokenIds ?? []);
  const allowed = params.allowedTokenIds;
  if (allowed === null) return;
  if (allowed.length === 0) {
    throw parameterError('allowed_token_ids is not None and empty!', 'allowed_token_ids', allowed);
  }
  const unknown = outside(allowed);
  if (unknown.length > 0) {
    throw parameterError('allowed_token_ids contains out-of-vocab token id!', 'allowed_token_ids', unknown);
  }
}

/**
 * A word may open a text or follow a space: both spellings are banned, the second where it is a token sequence of its own of the same length
 * (otherwise banning it would ban the space).
 */
function tokenizeBadWords(words: string[], tokenizer: Tokenizer | null): number[][] {
  if (words.length === 0) return [];
  if (tokenizer === null) {
    throw new ValidationError(
      'bad_words needs a tokenizer, and this server runs with --skip-tokenizer-init.',
      'bad_words',
    );
  }
  const sequences: number[][] = [];
  for (const word of words) {
    if (word.length > MAX_BAD_WORD_CHARACTERS) {
      const sentence = `bad_words entries must have at most ${MAX_BAD_WORD_CHARACTERS} characters, got ${word.length}.`;
      throw parameterError(sentence, 'bad_words');
    }
    const text = word.trimStart();
    const bare = [...tokenizer.encode(text, { addSpecialTokens: false })];
    if (bare.length === 0) {
      throw parameterError(
        `bad_words entries must tokenize to at least one token, ${pythonQuote(word)} does not.`,
        'bad_words',
        words,
      );
    }
    sequences.push(bare);
    const spaced = [...tokenizer.encode(` ${text}`, { addSpecialTokens: false })];
    if (spaced.length === bare.length && spaced[0] !== bare[0]) sequences.push(spaced);
    if (sequences.length > MAX_BAD_WORDS) {
      throw parameterError(`Too many bad words after tokenization. The max number is ${MAX_BAD_WORDS}.`, 'bad_words');
    }
  }
  return sequences;
}
