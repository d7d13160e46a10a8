import type { DenseLayer } from '../layers/dense-head.ts';
import type { PooledAs } from '../models/model-context.ts';
import type { PoolingTask } from './pooling-params.ts';

/** Which tokens' hidden states make the sequence's: the first, the last, or all by their mean. */
export const SEQ_POOLING_TYPES = ['CLS', 'LAST', 'MEAN'] as const;
export type SeqPoolingType = (typeof SEQ_POOLING_TYPES)[number];

/** What logits of classes become. */
export type ClassActivation = 'softmax' | 'sigmoid' | 'identity';

/** A `Dense` module of Sentence Transformers, which changes the size of embeddings. */
export interface DenseModule extends DenseLayer {
  /** Its folder within the model's. */
  path: string;
}

/** How the model's hidden states are pooled, as the checkpoint's files and `--pooler-config` say together. Plain data. */
export interface PoolingConfig extends PooledAs {
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
