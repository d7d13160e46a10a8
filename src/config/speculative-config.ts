import type { HfConfig } from '../models/hf-config.ts';
import { findArchitecture } from '../models/registry.ts';
import { ConfigError, UsageError } from './config-error.ts';
import type { FlagValues, GroupValues } from './flags/index.ts';

/** Drafts from the text itself: what stood behind its last tokens before. */
export interface NgramConfig {
  method: 'ngram';
  /** Most drafts of a request in a step. */
  numSpeculativeTokens: number;
  /** Tokens that must have stood together before, at the least and at the most. */
  promptLookupMin: number;
  promptLookupMax: number;
}

/** Drafts by a smaller model. */
export interface DraftModelConfig {
  method: 'draft_model';
  numSpeculativeTokens: number;
  /** As the operator named it. */
  model: string;
  /** Local folder with config.json and weights. */
  folder: string;
  hf: HfConfig;
  /** As `--quantization`, of the draft alone. */
  quantization: string | null;
}

export type SpeculativeConfig = NgramConfig | DraftModelConfig;

/** A draft model that nobody has looked for yet. */
export type DraftModelArgs = Omit<DraftModelConfig, 'folder' | 'hf'> & { revision: string | null };
export type SpeculativeArgs = NgramConfig | DraftModelArgs;

type NamedModel = Pick<DraftModelConfig, 'model' | 'hf'>;
type Members = Readonly<Record<string, unknown>>;

const FLAG = '--speculative-config';
/** Each draft is a row of logits; far fewer than this are ever right. */
const MAX_SPECULATIVE_TOKENS = 32;
/** vLLM's. */
const DEFAULT_LOOKUP = 5;

const OF_NGRAM = ['prompt_lookup_max', 'prompt_lookup_min'];
const OF_DRAFT_MODEL = ['model', 'revision', 'quantization'];
const KNOWN = ['method', 'num_speculative_tokens', ...OF_NGRAM, ...OF_DRAFT_MODEL];

/** vLLM's members of which only the default is taken: what they would change is not there. */
const SETTLED: Members = {
  draft_tensor_parallel_size: 1,
  moe_backend: 'auto',
  attention_backend: 'auto',
  parallel_drafting: false,
  disable_padded_drafter_batch: false,
  use_local_argmax_reduction: false,
  use_heterogeneous_vocab: false,
  enable_adaptive_verification: false,
  draft_sample_method: 'greedy',
  rejection_sample_method: 'standard',
};

/**
 * What the flags of speculative decoding say together; null: there is none.
 *
 * @throws UsageError
 */
export function readSpeculativeFlags(
  flags: GroupValues<'speculative'> & Pick<FlagValues, 'asyncScheduling'>,
): SpeculativeArgs | null {
  const given = mergeFlags(flags);
  if (Object.keys(given).length === 0) return null;
  checkMembers(given);
  if (flags.asyncScheduling === true) {
    throw new UsageError(
      `--async-scheduling and ${FLAG} exclude each other: the drafts of a step follow from the tokens of the one before.`,
    );
  }
  const method = methodOf(given);
  checkOwners(given, method);
  if (given.num_speculative_tokens === undefined)
    throw new UsageError(`${FLAG} needs num_speculative_tokens, or --spec-tokens.`);
  const common = {
    numSpeculativeTokens: wholeNumber('num_speculative_tokens', given.num_speculative_tokens, MAX_SPECULATIVE_TOKENS),
  };
  if (method === 'ngram') return { method, ...common, ...lookupOf(given) };
  const model = text('model', given.model);
  if (model === null) throw new UsageError(`${FLAG} needs a model for the method draft_model, or --spec-model.`);
  return {
    method,
    ...common,
    model,
    revision: text('revision', given.revision),
    quantization: text('quantization', given.quantization),
  };
}

/** What a request that has its prompt takes of a step at the most. */
export function tokensPerDecode(speculation: Pick<SpeculativeArgs, 'numSpeculativeTokens'> | null): number {
  return 1 + (speculation?.numSpeculativeTokens ?? 0);
}

/** Throws ConfigError for a model that can't draft for the target. */
export function checkDraftModel({ model, hf }: NamedModel, target: NamedModel): void {
  if (findArchitecture(hf.architectures)?.kind === 'encoder') {
    throw new ConfigError(
      `The draft model ${model} is an encoder, ${hf.architectures.join(', ')}: it generates nothing.`,
    );
  }
  if (hf.vocabSize !== target.hf.vocabSize) {
    throw new ConfigError(
      `The draft model ${model} has a vocabulary of ${hf.vocabSize} tokens, ${target.model} one of ${target.hf.vocabSize}: a draft model must have the model's own.`,
    );
  }
}

/** The members that are given, from the JSON and from the flags that say the same. A null is as good as nothing. */
function mergeFlags({ speculativeConfig, specMethod, specModel, specTokens }: GroupValues<'speculative'>): Members {
  const given = Object.fromEntries(Object.entries(speculativeConfig).filter(([, value]) => value !== null));
  const shorthands: [flag: string, key: string, value: unknown][] = [
    ['--spec-method', 'method', specMethod],
    ['--spec-model', 'model', specModel],
    ['--spec-tokens', 'num_speculative_tokens', specTokens],
  ];
  for (const [flag, key, value] of shorthands) {
    if (value === null) continue;
    if (given[key] !== undefined && given[key] !== value) {
      throw new UsageError(`${flag} ${value} and ${FLAG}.${key} ${JSON.stringify(given[key])} contradict each other.`);
    }
    given[key] = value;
  }
  return given;
}

function checkMembers(given: Members): void {
  for (const [key, value] of Object.entries(given)) {
    if (KNOWN.includes(key)) continue;
    if (!Object.hasOwn(SETTLED, key)) throw new UsageError(`${FLAG} has no ${key}; it takes ${KNOWN.join(', ')}.`);
    if (value !== SETTLED[key]) {
      throw new UsageError(`${FLAG}.${key} can only be ${JSON.stringify(SETTLED[key])}, not ${JSON.stringify(value)}.`);
    }
  }
}

/** By vLLM's rule: a model without a method is a draft model, but for the name ngram. */
function methodOf({ method, model }: Members): SpeculativeConfig['method'] {
  if (method === undefined && model === undefined) throw new UsageError(`${FLAG} needs a method or a model.`);
  const named = method ?? (isNgram(model) ? 'ngram' : 'draft_model');
  if (isNgram(named)) return 'ngram';
  if (named === 'draft_model') return named;
  throw new UsageError(
    `${FLAG}.method must be ngram or draft_model, not ${JSON.stringify(named)}: Bao has no other of vLLM's methods.`,
  );
}

function isNgram(name: unknown): boolean {
  return name === 'ngram' || name === '[ngram]';
}

function checkOwners(given: Members, method: SpeculativeConfig['method']): void {
  const foreign = method === 'ngram' ? OF_DRAFT_MODEL : OF_NGRAM;
  const key = foreign.find((each) => given[each] !== undefined && !(each === 'model' && isNgram(given.model)));
  if (key !== undefined) throw new UsageError(`${FLAG}.${key} means nothing with the method ${method}.`);
}

/** One of the two stands for both. */
function lookupOf(given: Members): Pick<NgramConfig, 'promptLookupMin' | 'promptLookupMax'> {
  const { prompt_lookup_min: min, prompt_lookup_max: max } = given;
  const promptLookupMax = wholeNumber('prompt_lookup_max', max ?? min ?? DEFAULT_LOOKUP);
  const promptLookupMin = wholeNumber('prompt_lookup_min', min ?? max ?? DEFAULT_LOOKUP);
  if (promptLookupMin > promptLookupMax) {
    throw new UsageError(
      `${FLAG}.prompt_lookup_min ${promptLookupMin} is more than prompt_lookup_max ${promptLookupMax}.`,
    );
  }
  return { promptLookupMin, promptLookupMax };
}

function wholeNumber(key: string, value: unknown, max = Number.MAX_SAFE_INTEGER): number {
  if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max) return value as number;
  const range = max === Number.MAX_SAFE_INTEGER ? 'of at least 1' : `from 1 to ${max}`;
  throw new UsageError(`${FLAG}.${key} must be a whole number ${range}, not ${JSON.stringify(value)}.`);
}

function text(key: string, value: unknown): string | null {
  if (value === undefined) return null;
  if (typeof value === 'string' && value !== '') return value;
  throw new UsageError(`${FLAG}.${key} must be a text, not ${JSON.stringify(value)}.`);
}
