import type { PoolingTask } from './pooling-params.ts';

/** Which tokens' hidden states make the sequence's: the first, the last, or all by their mean. */
export const SEQ_POOLING_TYPES = ['CLS', 'LAST', 'MEAN'] as const;
export type SeqPoolingType = (typeof SEQ_POOLING_TYPES)[number];

/** What logits of classes become. */
export type ClassActivation = 'softmax' | 'sigmoid' | 'identity';

/** A head for classes made of the LM head's rows of some tokens, by vLLM's names of ways. */
export interface ScoreTokens {
  /** One class, the second token's probability beside the first's; or a class for each token. */
  method: 'from_2_way_softmax' | 'no_post_processing';
  ids: number[];
}

/** A `Dense` module of Sentence Transformers, which changes the size of embeddings. */
export interface DenseModule {
  /** Its folder within the model's. */
  path: string;
  inFeatures: number;
  outFeatures: number;
  bias: boolean;
  /** By transformers' name; null: none. */
  act: string | null;
}

/** How the model's hidden states are pooled, as the checkpoint's files and `--pooler-config` say together. Plain data. */
export interface PoolingConfig {
  /** What the model makes: embeddings, or classes by its classification head. */
  convert: 'embed' | 'classify';
  /** What `/pooling` does with a request that names no task. */
  task: PoolingTask;
  seqPoolingType: SeqPoolingType;
  /** Default of a request's `use_activation`. */
  useActivation: boolean;
  /** Default of a request's `dimensions`; null: all. */
  dimensions: number | null;
  /** Whether embeddings may be cut, and to which lengths (null: any); null: the model wasn't trained for it. */
  matryoshka: { dimensions: number[] | null } | null;
  classActivation: ClassActivation;
  /** Logits become (logit - mean) / sigma before the activation (Platt scaling). */
  logitMean: number;
  logitSigma: number;
  /** Names of the classes; empty for embeddings. */
  labels: string[];
  /** null: the head for classes is the checkpoint's own. */
  scoreTokens: ScoreTokens | null;
  /** What embeddings go through after pooling, one after another. */
  dense: DenseModule[];
  /** The two texts of a pair are put together as the tokenizer says, with what it puts between them; false: as they are, one behind the other. */
  usesSepToken: boolean;
  /** Texts are made lower case before they are tokenized. */
  lowerCases: boolean;
  /** What goes before a text by what the text is for (`input_type` of `/v2/embed`); null: the model names none. */
  prompts: Record<string, string> | null;
  /** Tokens see those behind them: a prompt is computed in one step, and no prefix of it can be reused. */
  isEncoder: boolean;
}

/** Tasks of a request that the model serves. */
export function supportedPoolingTasks({ convert }: PoolingConfig): PoolingTask[] {
  return convert === 'embed' ? ['embed', 'token_embed'] : ['classify', 'token_classify'];
}

/** Pairs are scored: by a head with one class, or by the angle between embeddings. */
export function canScore({ convert, labels }: PoolingConfig): boolean {
  return convert === 'embed' || labels.length === 1;
}

/** Whether a prompt may be computed in chunks, and begin with a cached prefix: only where its last hidden state is all that counts. */
export function canChunk({ isEncoder, seqPoolingType }: PoolingConfig): boolean {
  return !isEncoder && seqPoolingType === 'LAST';
}
