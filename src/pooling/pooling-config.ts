import type { PoolingTask } from './pooling-params.ts';

/** Which tokens' hidden states make the sequence's: the first, the last, or all by their mean. */
export const SEQ_POOLING_TYPES = ['CLS', 'LAST', 'MEAN'] as const;
export type SeqPoolingType = (typeof SEQ_POOLING_TYPES)[number];

/** What logits of classes become. */
export type ClassActivation = 'softmax' | 'sigmoid' | 'identity';

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
