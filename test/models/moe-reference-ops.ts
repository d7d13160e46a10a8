import { floats, ints } from './reference-values.ts';

type Op = (...args: number[]) => void;

export interface Routing {
  numExperts: number;
  topK: number;
  scoring: 'softmax' | 'sigmoid';
  numGroups: number;
  topkGroups: number;
  renormalize: boolean;
  scale: number;
}

const descending = (values: readonly number[]) =>
  values.map((_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b);

/** The chosen experts of one token with their weights, best first. */
export function routeToken(logits: readonly number[], bias: readonly number[] | null, routing: Routing) {
  const { numExperts, topK, numGroups, topkGroups } = routing;
  const max = Math.max(...logits);
  const exps = logits.map((logit) => Math.exp(logit - max));
  const total = exps.reduce((sum, value) => sum + value, 0);
  const scores =
    routing.scoring === 'sigmoid'
      ? logits.map((logit) => 1 / (1 + Math.exp(-logit)))
      : exps.map((value) => value / total);
  const choice = scores.map((score, i) => score + (bias?.[i] ?? 0));
  const size = numExperts / numGroups;
  const groupScores = Array.from({ length: numGroups }, (_, group) => {
    const best = choice.slice(group * size, (group + 1) * size).sort((a, b) => b - a);
    return best[0]! + (best[1] ?? 0);
  });
  const groups = new Set(descending(groupScores).slice(0, topkGroups));
  const ids = descending(choice)
    .filter((expert) => groups.has(Math.floor(expert / size)))
    .slice(0, topK);
  const chosen = ids.map((id) => scores[id]!);
  const divisor = routing.renormalize ? chosen.reduce((sum, score) => sum + score, 0) + 1e-20 : 1;
  return { ids, weights: chosen.map((score) => (score / divisor) * routing.scale) };
}

const moeRoute: Op = (
  logits,
  correctionBias,
  ids,
  weights,
  numTokens,
  numExperts,
  topK,
  scoring,
  numGroups,
  topkGroups,
  renormalize,
  scale,
) => {
  const bias = correctionBias === 0 ? null : Array.from(floats(correctionBias, numExperts));
  for (let token = 0; token < numTokens; token++) {
    const chosen = routeToken(Array.from(floats(logits + token * numExperts * 4, numExperts)), bias, {
      numExperts,
      topK,
      scoring: scoring === 1 ? 'sigmoid' : 'softmax',
      numGroups,
      topkGroups,
      renormalize: renormalize === 1,
      scale,
    });
    ints(ids + token * topK * 4, topK).set(chosen.ids);
    floats(weights + token * topK * 4, topK).set(chosen.weights);
  }
};

const moePermute: Op = (ids, expertOffsets, rowOfPair, tokenOfRow, numTokens, topK, numExperts) => {
  const experts = Array.from(ints(ids, numTokens * topK));
  const pairs = experts.map((_, pair) => pair).sort((a, b) => experts[a]! - experts[b]! || a - b);
  pairs.forEach((pair, row) => {
    ints(rowOfPair, numTokens * topK)[pair] = row;
    ints(tokenOfRow, numTokens * topK)[row] = Math.floor(pair / topK);
  });
  const offsets = ints(expertOffsets, numExperts + 1);
  for (let expert = 0; expert <= numExperts; expert++) offsets[expert] = experts.filter((id) => id < expert).length;
};

const moeCombine: Op = (rows, rowOfPair, weights, out, numTokens, topK, n) => {
  const places = ints(rowOfPair, numTokens * topK);
  const shares = floats(weights, numTokens * topK);
  for (let token = 0; token < numTokens; token++) {
    const sums = new Float64Array(n);
    for (let pair = token * topK; pair < (token + 1) * topK; pair++) {
      floats(rows + places[pair]! * n * 4, n).forEach((value, i) => {
        sums[i]! += shares[pair]! * value;
      });
    }
    floats(out + token * n * 4, n).set(sums);
  }
};

/** The ops of a mixture of experts but for the product. */
export const MOE_REFERENCE_OPS = { moe_route: moeRoute, moe_permute: moePermute, moe_combine: moeCombine };
