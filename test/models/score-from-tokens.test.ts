import { expect, test } from 'bun:test';
import { withScoreFromTokens } from '../../src/models/score-from-tokens.ts';
import { MemoryWeights } from './memory-weights.ts';
import { floats } from './reference-values.ts';

const CONFIG = { hiddenSize: 3, vocabSize: 4 };
const TABLE = [1, 2, 3, 10, 20, 30, 5, 7, 9, -1, -2, -3];

function score(tieWordEmbeddings: boolean, method: 'from_2_way_softmax' | 'no_post_processing', ids: number[]) {
  const name = tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
  const weights = new MemoryWeights().set(name, [4, 3], TABLE);
  const config = { ...CONFIG, tieWordEmbeddings } as Parameters<typeof withScoreFromTokens>[1];
  const source = withScoreFromTokens(weights, config, { method, ids });
  const { shape, ptr } = source.get('score.weight');
  return { shape, values: [...floats(ptr, shape[0]! * 3)] };
}

test.each([true, false])('rows of the tokens, or their difference (tied: %p)', (tied) => {
  expect(score(tied, 'from_2_way_softmax', [0, 2])).toEqual({ shape: [1, 3], values: [4, 5, 6] });
  expect(score(tied, 'no_post_processing', [3, 1])).toEqual({ shape: [2, 3], values: [-1, -2, -3, 10, 20, 30] });
});
