import type { PoolingRequestOutput } from '../../engine/engine-client.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import type { PoolerOutput } from '../../pooling/finish-pooling.ts';
import { type PairOptions, pairMaker } from './pair-prompts.ts';
import {
  type PoolingContext,
  type PoolingOrigin,
  type PoolingPrompt,
  poolingConfigOf,
  preparePrompt,
  textLimits,
} from './pooling-requests.ts';
import type { TextLimits } from './text-limits.ts';

/** One text for all of texts2, or as many. */
export interface TextPairs {
  texts1: readonly string[];
  texts2: readonly string[];
}

export interface PairScore {
  score: number;
  /** Of both texts together. */
  promptTokens: number;
}

/** Pairs on their way: what the engine must run, and how the scores follow from it. */
export interface PairScoring {
  task: 'embed' | 'classify';
  prompts: PoolingPrompt[];
  scoresOf(outputs: readonly PoolingRequestOutput[]): PairScore[];
}

/** What of a request says how pairs are scored. */
export type ScoreOptions = PoolingOrigin & PairOptions;

/**
 * How well the texts of each pair go together: what the model's one class says to both as one prompt (cross encoder), or the cosine of their
 * embeddings (bi-encoder).
 *
 * @throws ValidationError
 */
export async function preparePairs(
  context: PoolingContext,
  pairs: TextPairs,
  options: ScoreOptions,
): Promise<PairScoring> {
  checkTokenLimits(context, options);
  const limits = textLimits(context, options);
  return poolingConfigOf(context).convert === 'classify'
    ? prepareForClass(context, pairs, options, limits)
    : prepareForCosine(context, pairs, options, limits);
}

async function prepareForClass(
  context: PoolingContext,
  { texts1, texts2 }: TextPairs,
  options: ScoreOptions,
  limits: TextLimits,
): Promise<PairScoring> {
  const makePair = pairMaker(context, options, limits);
  return {
    task: 'classify',
    prompts: await Promise.all(texts2.map((second, i) => makePair(texts1[texts1.length === 1 ? 0 : i]!, second))),
    scoresOf: (outputs) =>
      outputs.map(({ output, promptTokenIds }) => ({ score: oneClass(output), promptTokens: promptTokenIds.length })),
  };
}

/** Throws ValidationError where an adapter's head has several. */
function oneClass({ values, width }: PoolerOutput): number {
  if (width === 1) return values[0]!;
  throw new ValidationError(`A score is the probability of one class; the adapter has ${width}.`, 'model');
}

async function prepareForCosine(
  context: PoolingContext,
  { texts1, texts2 }: TextPairs,
  options: ScoreOptions,
  limits: TextLimits,
): Promise<PairScoring> {
  for (const name of ['instruction', 'chat_template_kwargs'] as const) {
    if (options[name] == null) continue;
    throw new ValidationError(`${name} is for models that read both texts as one prompt.`, name);
  }
  const prepare = (text: string, most: number) => {
    const keep = most === 0 ? limits.keep : Math.min(most, limits.keep ?? most);
    return preparePrompt(context, text, true, { ...limits, keep });
  };
  const prompts = await Promise.all([
    ...texts1.map((text) => prepare(text, options.max_tokens_per_query)),
    ...texts2.map((text) => prepare(text, options.max_tokens_per_doc)),
  ]);
  const scoresOf = (outputs: readonly PoolingRequestOutput[]) =>
    outputs.slice(texts1.length).map((second, i) => {
      const first = outputs[texts1.length === 1 ? 0 : i]!;
      return {
        score: cosine(first.output.values, second.output.values),
        promptTokens: first.promptTokenIds.length + second.promptTokenIds.length,
      };
    });
  return { task: 'embed', prompts, scoresOf };
}

/** @throws ValidationError for a text length that leaves no room for the other */
function checkTokenLimits({ config }: PoolingContext, fields: ScoreOptions): void {
  const { maxModelLen } = config.model;
  for (const name of ['max_tokens_per_query', 'max_tokens_per_doc'] as const) {
    if (fields[name] >= maxModelLen) {
      throw new ValidationError(
        `${name} (${fields[name]}) must be less than max_model_len (${maxModelLen}).`,
        name,
        fields[name],
      );
    }
  }
}

/** 0 where one of them is nothing but zeros. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, squaresA, squaresB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    squaresA += a[i]! * a[i]!;
    squaresB += b[i]! * b[i]!;
  }
  return dot / Math.max(Math.sqrt(squaresA * squaresB), Number.MIN_VALUE);
}
