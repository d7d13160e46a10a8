import { ptr } from 'bun:ffi';
import { readVector } from '../layers/host-vector.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import type { HfConfig } from './hf-config.ts';
import type { ScoreTokens } from './model-context.ts';

export const SCORE_WEIGHT = 'score.weight';

/**
 * The checkpoint of a generating model with a `score` head made of its LM head: the rows of the tokens that it would answer with, or, of two,
 * the second's less the first's, whose sigmoid is the second's probability beside the first.
 *
 * @param weights names as in a checkpoint with an LM head
 */
export function withScoreFromTokens(
  weights: WeightSource,
  { hiddenSize, vocabSize, tieWordEmbeddings }: HfConfig,
  { method, ids }: ScoreTokens,
): WeightSource {
  const head = tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
  const table = weights.get(head, [vocabSize, hiddenSize]);
  const rows = ids.map((id) => readVector(table, id * hiddenSize, hiddenSize));
  const score = method === 'from_2_way_softmax' ? [rows[1]!.map((value, i) => value - rows[0]![i]!)] : rows;
  // An ArrayBuffer of its own: its address stays, while a small typed array may be moved.
  const memory = new Float32Array(new ArrayBuffer(score.length * hiddenSize * 4));
  score.forEach((row, i) => {
    memory.set(row, i * hiddenSize);
  });
  return {
    totalBytes: weights.totalBytes,
    has: (name) => name === SCORE_WEIGHT || weights.has(name),
    get: (name, shape): TensorView => {
      if (name !== SCORE_WEIGHT) return weights.get(name, shape);
      return { name, dtype: 'float32', shape: [score.length, hiddenSize], ptr: ptr(memory.buffer) };
    },
    names: () => weights.names(),
    close: () => weights.close(),
  };
}
