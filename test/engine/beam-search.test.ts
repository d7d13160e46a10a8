import { describe, expect, test } from 'bun:test';
import { type BeamSearchParams, type BeamStep, beamSearch } from '../../src/engine/beam-search.ts';

const EOS = 0;
const PROMPT = Int32Array.of(1);

/** A language model with a memory of one token: `next[token]` are the probabilities of what follows it. */
type Markov = Record<number, Record<number, number>>;

function ranked(model: Markov, token: number): { tokenId: number; logprob: number }[] {
  return Object.entries(model[token]!)
    .map(([id, p]) => ({ tokenId: Number(id), logprob: Math.log(p) }))
    .sort((a, b) => b.logprob - a.logprob);
}

/** Answers with the best tokens, the greedy one first and again among them, as the engine does. */
function stepOf(model: Markov, batches: number[] = []): BeamStep {
  return async (requests) => {
    batches.push(requests.length);
    return requests.map(({ promptTokenIds, params }) => {
      const best = ranked(model, promptTokenIds.at(-1)!).slice(0, params.logprobs!);
      const entries = best.map((entry, i) => ({ ...entry, rank: i + 1, decodedToken: '' }));
      const output = { index: 0, text: '', tokenIds: [best[0]!.tokenId], logprobs: [[entries[0]!, ...entries]] };
      return {
        requestId: '',
        promptTokenIds,
        promptLogprobs: null,
        outputs: [{ ...output, finishReason: 'length' as const, stopReason: null }],
        finished: true,
        numCachedTokens: 0,
      };
    });
  };
}

function search(model: Markov, params: Partial<BeamSearchParams>, batches: number[] = []) {
  const beamWidth = params.beamWidth ?? 2;
  return beamSearch(
    PROMPT,
    {
      beamWidth,
      numLogprobs: 2 * beamWidth,
      maxTokens: 3,
      lengthPenalty: 1,
      ignoreEos: false,
      skipSpecialTokens: true,
      ...params,
    },
    { eosTokenIds: [EOS], tokenizer: null, step: stepOf(model, batches) },
  );
}

/** Every sequence of the model up to a length, EOS ending it, with its score. */
function allSequences(model: Markov, maxTokens: number, lengthPenalty: number) {
  const found: { tokenIds: number[]; score: number }[] = [];
  const extend = (tokenIds: number[], sum: number) => {
    const isComplete = tokenIds.at(-1) === EOS;
    if (isComplete || tokenIds.length === maxTokens) {
      const length = PROMPT.length + tokenIds.length - (isComplete ? 1 : 0);
      found.push({ tokenIds, score: sum / length ** lengthPenalty });
      return;
    }
    for (const { tokenId, logprob } of ranked(model, tokenIds.at(-1) ?? 1)) {
      extend([...tokenIds, tokenId], sum + logprob);
    }
  };
  extend([], 0);
  return found.sort((a, b) => b.score - a.score);
}

/** The best first token leads nowhere good. */
const GARDEN_PATH: Markov = {
  1: { 2: 0.6, 3: 0.4 },
  2: { 4: 0.5, 5: 0.5 },
  3: { 4: 0.95, 5: 0.05 },
  4: { 4: 0.9, 5: 0.1 },
  5: { 4: 0.5, 5: 0.5 },
};

/** EOS is possible everywhere. */
const WITH_EOS: Markov = {
  1: { 0: 0.1, 2: 0.5, 3: 0.4 },
  2: { 0: 0.55, 2: 0.25, 3: 0.2 },
  3: { 0: 0.3, 2: 0.6, 3: 0.1 },
};

describe('beam search', () => {
  test('finds a sequence of higher probability than greedy choice does', async () => {
    const [wide] = (await search(GARDEN_PATH, { beamWidth: 2 })).outputs;
    const [greedy] = (await search(GARDEN_PATH, { beamWidth: 1 })).outputs;
    expect(greedy!.tokenIds).toEqual([2, 4, 4]);
    expect(wide!.tokenIds).toEqual([3, 4, 4]);
    expect(wide!.cumulativeLogprob).toBeGreaterThan(greedy!.cumulativeLogprob);
    expect(wide!.cumulativeLogprob).toBeCloseTo(Math.log(0.4 * 0.95 * 0.9), 9);
    expect(wide!.finishReason).toBe('length');
  });

  test.each([1, 0, -1, 2.5])('with beams for all it is exhaustive (length penalty %d)', async (lengthPenalty) => {
    const all = new Map(
      allSequences(WITH_EOS, 4, lengthPenalty).map(({ tokenIds, score }) => [tokenIds.join(), score]),
    );
    const { outputs } = await search(WITH_EOS, { beamWidth: 60, maxTokens: 4, lengthPenalty });
    expect(outputs).toHaveLength(all.size);
    const scores = outputs.map(({ tokenIds }) => all.get(tokenIds.join())!);
    expect(scores).toEqual(scores.toSorted((a, b) => b - a));
  });

  test('answers that end with EOS say so, and it does not count in their length', async () => {
    const { outputs } = await search(WITH_EOS, { beamWidth: 2, maxTokens: 2 });
    const complete = outputs.find(({ tokenIds }) => tokenIds.at(-1) === EOS)!;
    expect(complete.finishReason).toBe('stop');
    expect(complete.tokenIds).toEqual([2, EOS]);
    const ignoring = await search(WITH_EOS, { beamWidth: 2, maxTokens: 2, ignoreEos: true });
    expect(ignoring.outputs.every(({ finishReason }) => finishReason === 'length')).toBe(true);
  });

  test('the log probabilities of a token begin with its own', async () => {
    const { outputs } = await search(WITH_EOS, { beamWidth: 3 });
    for (const { tokenIds, logprobs, cumulativeLogprob } of outputs) {
      expect(logprobs!.map((position) => position![0]!.tokenId)).toEqual(tokenIds);
      const sum = logprobs!.reduce((total, position) => total + position![0]!.logprob, 0);
      expect(sum).toBeCloseTo(cumulativeLogprob, 9);
    }
  });

  test('it ends as soon as no growing beam can be among the answers', async () => {
    const certainEnd: Markov = { 1: { 0: 0.98, 2: 0.01, 3: 0.01 }, 2: { 2: 0.5, 3: 0.5 }, 3: { 2: 0.5, 3: 0.5 } };
    const batches: number[] = [];
    const { outputs } = await search(certainEnd, { beamWidth: 1, maxTokens: 50, lengthPenalty: 0 }, batches);
    expect(outputs[0]!.tokenIds).toEqual([EOS]);
    expect(batches).toEqual([1]);
  });

  test('a step has all beams in one batch', async () => {
    const batches: number[] = [];
    await search(GARDEN_PATH, { beamWidth: 2 }, batches);
    expect(batches).toEqual([1, 2, 2]);
  });
});
