import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';

/** What the sampler should do, written for reading: everything in doubles, everything sorted. */

export interface ReferenceInput {
  logits: ArrayLike<number>;
  params?: Partial<SamplingParams>;
  prompt?: number[];
  output?: number[];
  /** Ids that minTokens masks. */
  stopIds?: number[];
}

/** Logits after masks, bias, penalties and temperature, -Infinity for what top_k, top_p and min_p shut out. */
export function referenceProcessed(input: ReferenceInput): number[] {
  const params = { ...DEFAULT_SAMPLING_PARAMS, ...input.params };
  const prompt = input.prompt ?? [];
  const output = input.output ?? [];
  let logits = Array.from(input.logits);
  const mask = (id: number) => {
    if (id in logits) logits[id] = -Infinity;
  };

  if (params.allowedTokenIds !== null) {
    const allowed = new Set(params.allowedTokenIds);
    logits = logits.map((logit, id) => (allowed.has(id) ? logit : -Infinity));
  }
  for (const word of params.badWordsTokenIds) {
    const prefix = word.slice(0, -1);
    const tail = prefix.length === 0 ? [] : output.slice(-prefix.length);
    if (prefix.join() === tail.join() && tail.length === prefix.length) mask(word.at(-1)!);
  }
  if (output.length < params.minTokens) input.stopIds?.forEach(mask);
  for (const [id, bias] of params.logitBias) if (id in logits) logits[id]! += bias;

  for (const id of new Set([...prompt, ...output])) {
    if (!(id in logits)) continue;
    const logit = logits[id]!;
    logits[id] = logit > 0 ? logit / params.repetitionPenalty : logit * params.repetitionPenalty;
  }
  for (const id of new Set(output)) {
    if (!(id in logits)) continue;
    const count = output.filter((each) => each === id).length;
    logits[id]! -= params.frequencyPenalty * count + params.presencePenalty;
  }

  if (params.temperature === 0) return logits;
  logits = logits.map((logit) => logit / params.temperature);
  const best = Math.max(...logits);
  logits = logits.map((logit) => (Math.exp(logit - best) >= params.minP ? logit : -Infinity));
  if (params.topK > 0 && params.topK < logits.length) {
    const kth = [...logits].sort((a, b) => b - a)[params.topK - 1]!;
    logits = logits.map((logit) => (logit >= kth ? logit : -Infinity));
  }
  if (params.topP < 1) {
    const probabilities = softmax(logits);
    const order = logits.map((_, id) => id).sort((a, b) => probabilities[b]! - probabilities[a]! || a - b);
    let cumulative = 0;
    const kept = new Set<number>();
    for (const id of order) {
      if (kept.size > 0 && cumulative >= params.topP) break;
      kept.add(id);
      cumulative += probabilities[id]!;
    }
    logits = logits.map((logit, id) => (kept.has(id) ? logit : -Infinity));
  }
  return logits;
}

export function softmax(logits: readonly number[]): number[] {
  const best = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - best));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/**
 * Pearson's statistic of counts against probabilities, and the value that it exceeds with probability 1e-5 (Wilson and Hilferty's
 * approximation). Bins that are expected less than 5 times are taken together.
 */
export function chiSquared(
  counts: readonly number[],
  probabilities: readonly number[],
): { statistic: number; critical: number } {
  const total = counts.reduce((a, b) => a + b, 0);
  const bins: [observed: number, expected: number][] = [];
  let rare: [number, number] = [0, 0];
  for (const [id, probability] of probabilities.entries()) {
    const bin: [number, number] = [counts[id]!, probability * total];
    if (bin[1] >= 5) bins.push(bin);
    else rare = [rare[0] + bin[0], rare[1] + bin[1]];
  }
  if (rare[1] > 0) bins.push(rare);
  const statistic = bins.reduce((sum, [observed, expected]) => sum + (observed - expected) ** 2 / expected, 0);
  const degrees = Math.max(1, bins.length - 1);
  const z = 4.265;
  return { statistic, critical: degrees * (1 - 2 / (9 * degrees) + z * Math.sqrt(2 / (9 * degrees))) ** 3 };
}

/** Philox4x32-10 on BigInts, straight from the paper's definition. */
export function philox4x32(counter: readonly number[], key: readonly number[]): number[] {
  const word = (value: bigint) => value & 0xffffffffn;
  let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const left = 0xd2511f53n * c0;
    const right = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(right >> 32n) ^ c1 ^ k0, word(right), (left >> 32n) ^ c3 ^ k1, word(left)];
    k0 = word(k0 + 0x9e3779b9n);
    k1 = word(k1 + 0xbb67ae85n);
  }
  return [c0, c1, c2, c3].map(Number);
}

/** Deterministic normal deviates for test logits. */
export function normals(count: number, seed: number, scale = 1): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    return scale * radius * Math.cos(2 * Math.PI * uniform());
  });
}
