import type { HfConfig } from '../models/hf-config.ts';
import type { ScoreTokens } from '../models/model-context.ts';
import { readTokenizerFiles, type TokenizerJson } from '../tokenizer/tokenizer-files.ts';
import { ConfigError } from './config-error.ts';

type Method = ScoreTokens['method'];

const METHODS: readonly Method[] = ['from_2_way_softmax', 'no_post_processing'];

/** The tokens that a generating model would answer with, where it is served as a classifier by them. */
export interface NamedScoreTokens {
  method: Method;
  tokens: string[];
}

/**
 * vLLM's `classifier_from_token` and `method` in config.json, mostly by `--hf-overrides`; null: the model has a head of its own.
 *
 * @throws ConfigError for members that are not what they must be
 */
export function readScoreTokens({ raw }: Pick<HfConfig, 'raw'>): NamedScoreTokens | null {
  const { classifier_from_token: tokens, is_original_qwen3_reranker: isQwen3Reranker } = raw;
  const method = isQwen3Reranker === true ? 'from_2_way_softmax' : raw.method;
  if (tokens == null && isQwen3Reranker !== true) return null;
  if (!Array.isArray(tokens) || tokens.length === 0 || !tokens.every((token) => typeof token === 'string')) {
    throw new ConfigError(
      `classifier_from_token in config.json or --hf-overrides must be a list of tokens, not ${JSON.stringify(tokens)}.`,
    );
  }
  const known = METHODS.find((each) => each === method);
  if (known === undefined) {
    throw new ConfigError(
      `method in config.json or --hf-overrides must be ${METHODS.join(' or ')} beside classifier_from_token, not ${JSON.stringify(method)}.`,
    );
  }
  if (known === 'from_2_way_softmax' && tokens.length !== 2) {
    throw new ConfigError(
      `classifier_from_token must have two tokens, the one for "no" first, with from_2_way_softmax; it has ${tokens.length}.`,
    );
  }
  return { method: known, tokens };
}

/** Ids of the tokens in the vocabulary. Throws ConfigError for one that is not there, LoadError for files that can't be read. */
export function resolveScoreTokens({ method, tokens }: NamedScoreTokens, tokenizerFolder: string | null): ScoreTokens {
  if (tokenizerFolder === null) {
    throw new ConfigError('classifier_from_token needs the tokenizer: it does not go with --skip-tokenizer-init.');
  }
  const { json } = readTokenizerFiles(tokenizerFolder);
  return { method, ids: tokens.map((token) => tokenId(json, token)) };
}

function tokenId({ added_tokens: added, model: { vocab } }: TokenizerJson, token: string): number {
  const id =
    added.find(({ content }) => content === token)?.id ??
    (Array.isArray(vocab)
      ? vocab.findIndex((entry) => Array.isArray(entry) && entry[0] === token)
      : (vocab as Record<string, unknown> | null)?.[token]);
  if (Number.isSafeInteger(id) && (id as number) >= 0) return id as number;
  throw new ConfigError(`classifier_from_token: "${token}" is no token of the model's vocabulary.`);
}
