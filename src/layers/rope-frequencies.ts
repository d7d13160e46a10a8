import type { RopeParameters } from './rope-parameters.ts';

/** The angles of a rotary embedding: element pair i turns by position * inverseFrequencies[i]. */
export interface RopeFrequencies {
  /** [rotaryDim / 2], radians per position. */
  inverseFrequencies: Float64Array;
  /** Multiplies cos and sin. */
  attentionFactor: number;
}

export interface RopeFrequencyOptions {
  headDim: number;
  /** max_position_embeddings of the config. */
  maxPositionEmbeddings: number;
  /** Tokens of the sequences that the frequencies are for; only `dynamic` and `longrope` depend on it. */
  sequenceLength: number;
}

/** Elements of a head that are rotated. Throws when that is not a whole number of pairs. */
export function rotaryDim(rope: RopeParameters, headDim: number): number {
  const dim = Math.trunc(headDim * rope.partialRotaryFactor);
  if (dim <= 0 || dim % 2 !== 0) {
    throw new Error(`Rotary embedding of ${dim} of ${headDim} head elements; expected a positive even number.`);
  }
  return dim;
}

/**
 * Length up to which sequences use other frequencies than beyond it, or null when there is one set for all.
 * `longrope` has two sets of factors; `dynamic` scales only what the model was not trained for.
 */
export function ropeSwitchLength(rope: RopeParameters, maxPositionEmbeddings: number): number | null {
  if (rope.ropeType === 'longrope') return rope.originalMaxPositionEmbeddings ?? maxPositionEmbeddings;
  if (rope.ropeType === 'dynamic') return maxPositionEmbeddings;
  return null;
}

/** Frequencies of any rope type, as defined by transformers' configurations. */
export function ropeFrequencies(rope: RopeParameters, options: RopeFrequencyOptions): RopeFrequencies {
  const dim = rotaryDim(rope, options.headDim);
  const base = baseFrequencies(rope.theta, dim);
  switch (rope.ropeType) {
    case 'default':
      return { inverseFrequencies: base, attentionFactor: 1 };
    case 'linear':
      return { inverseFrequencies: base.map((frequency) => frequency / rope.factor), attentionFactor: 1 };
    case 'dynamic':
      return dynamicNtk(rope, dim, options);
    case 'llama3':
      return llama3(rope, base, options);
    case 'yarn':
      return yarn(rope, base, dim, options);
    case 'longrope':
      return longrope(rope, base, options);
  }
}

/** theta^(-2i / dim) */
function baseFrequencies(theta: number, dim: number): Float64Array {
  return Float64Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim));
}

/** NTK-aware scaling (reddit.com/r/LocalLLaMA/comments/14mrgpr): the base grows with the length beyond the trained one. */
function dynamicNtk(rope: RopeParameters, dim: number, options: RopeFrequencyOptions): RopeFrequencies {
  const { maxPositionEmbeddings, sequenceLength } = options;
  const stretch = Math.max(sequenceLength, maxPositionEmbeddings) / maxPositionEmbeddings;
  const theta = rope.theta * (rope.factor * stretch - (rope.factor - 1)) ** (dim / (dim - 2));
  return { inverseFrequencies: baseFrequencies(theta, dim), attentionFactor: 1 };
}

/** Llama 3.1: long wavelengths are stretched by the factor, short ones kept, those between blended. */
function llama3(rope: RopeParameters, base: Float64Array, options: RopeFrequencyOptions): RopeFrequencies {
  const original = rope.originalMaxPositionEmbeddings ?? options.maxPositionEmbeddings;
  const { factor, lowFreqFactor, highFreqFactor } = rope;
  const inverseFrequencies = base.map((frequency) => {
    const turns = (original * frequency) / (2 * Math.PI);
    const keep = clamp((turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor), 0, 1);
    return frequency * (keep + (1 - keep) / factor);
  });
  return { inverseFrequencies, attentionFactor: 1 };
}

/** YaRN (arxiv.org/abs/2309.00071): pairs that turn often are kept, slow ones interpolated, with a ramp over the pair index between. */
function yarn(rope: RopeParameters, base: Float64Array, dim: number, options: RopeFrequencyOptions): RopeFrequencies {
  const original = rope.originalMaxPositionEmbeddings ?? options.maxPositionEmbeddings;
  const pairOfTurns = (turns: number) =>
    (dim * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(rope.theta));
  let low = pairOfTurns(rope.betaFast);
  let high = pairOfTurns(rope.betaSlow);
  if (rope.truncate) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  const width = high === low ? 0.001 : high - low;
  const inverseFrequencies = base.map((frequency, i) => {
    const interpolate = clamp((i - low) / width, 0, 1);
    return frequency * (1 - interpolate + interpolate / rope.factor);
  });
  return { inverseFrequencies, attentionFactor: yarnAttentionFactor(rope) };
}

function yarnAttentionFactor(rope: RopeParameters): number {
  if (rope.attentionFactor !== null) return rope.attentionFactor;
  const scale = (mscale: number) => (rope.factor <= 1 ? 1 : 0.1 * mscale * Math.log(rope.factor) + 1);
  if (rope.mscale !== null && rope.mscaleAllDim !== null) return scale(rope.mscale) / scale(rope.mscaleAllDim);
  return scale(1);
}

/** LongRoPE (arxiv.org/abs/2402.13753): each pair has a searched factor, one for short sequences and one for long ones. */
function longrope(rope: RopeParameters, base: Float64Array, options: RopeFrequencyOptions): RopeFrequencies {
  const original = rope.originalMaxPositionEmbeddings ?? options.maxPositionEmbeddings;
  const factors = options.sequenceLength > original ? rope.longFactor : rope.shortFactor;
  if (factors?.length !== base.length) {
    throw new Error(
      `longrope has ${factors?.length ?? 'no'} factors; expected ${base.length}, one for each rotated pair.`,
    );
  }
  const attentionFactor =
    rope.attentionFactor ?? (rope.factor <= 1 ? 1 : Math.sqrt(1 + Math.log(rope.factor) / Math.log(original)));
  return { inverseFrequencies: base.map((frequency, i) => frequency / factors[i]!), attentionFactor };
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
