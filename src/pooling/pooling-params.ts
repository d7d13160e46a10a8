import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../sampling/sampling-params.ts';

/** What is made of hidden states: one vector of a sequence, or one of each token. */
export const POOLING_TASKS = ['embed', 'classify', 'token_embed', 'token_classify'] as const;
export type PoolingTask = (typeof POOLING_TASKS)[number];

/** vLLM's PoolingParams, resolved: every default is filled in. */
export interface PoolingParams {
  task: PoolingTask;
  /** Elements that are kept of an embedding (Matryoshka); null: all. */
  dimensions: number | null;
  /** Embeddings get length 1, logits become probabilities. */
  useActivation: boolean;
  /** Index in the prompt of the first token of a pair's second text; null: there is one text. */
  firstTypeOne: number | null;
}

/** The answer needs every token's hidden state, so that none may come from the prefix cache. */
export function isTokenwise({ task }: PoolingParams): boolean {
  return task === 'token_embed' || task === 'token_classify';
}

/**
 * How a pooling request is scheduled: like one that ends with its first token. The token itself is never sampled; the pooled output takes its
 * place and ends the request.
 */
export const POOLING_SAMPLING_PARAMS: SamplingParams = {
  ...DEFAULT_SAMPLING_PARAMS,
  temperature: 0,
  maxTokens: 1,
  ignoreEos: true,
  detokenize: false,
  outputKind: 'final-only',
};
