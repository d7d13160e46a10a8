import type { RopeParameters } from '../layers/rope-parameters.ts';
import { ConfigFields } from './config-fields.ts';

/** The rotary embeddings of a model: by the layer's attention type. */
export interface RopeByLayerType {
  full: RopeParameters;
  sliding: RopeParameters;
}

const ROPE_TYPES = ['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope'] as const;
type RopeType = (typeof ROPE_TYPES)[number];

/** Names that older checkpoints give to a type of today. */
const OLD_ROPE_TYPES: Readonly<Record<string, RopeType>> = { su: 'longrope', none: 'default' };

/** The forms whose formula has no default for the field. */
const REQUIRED: Readonly<Record<RopeType, readonly string[]>> = {
  default: [],
  linear: ['factor'],
  dynamic: ['factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor'],
  yarn: [],
  longrope: ['short_factor', 'long_factor'],
};

export interface RopeDefaults {
  theta: number;
  /** Of sliding window layers, where the family gives them another one. */
  localTheta: number | null;
  maxPositionEmbeddings: number;
  /** Elements of a head. */
  headDim: number;
}

/**
 * Reads rotary parameters in the forms of transformers 4 (`rope_theta` and `rope_scaling` beside it, `type` or `rope_type` in it) and
 * 5 (`rope_parameters`, flat or by layer type). Throws HfConfigError.
 */
export function parseRope(fields: ConfigFields, defaults: RopeDefaults): RopeByLayerType {
  const modern = fields.object('rope_parameters');
  const full = modern?.object('full_attention') ?? null;
  const sliding = modern?.object('sliding_attention') ?? null;
  if (modern !== null && (full !== null || sliding !== null)) {
    const localTheta = defaults.localTheta ?? defaults.theta;
    return {
      full: parseOne(fields, full, defaults.theta, defaults),
      sliding: parseOne(fields, sliding, localTheta, defaults),
    };
  }
  const scaling = fields.object('rope_scaling') ?? modern;
  const main = parseOne(fields, scaling, defaults.theta, defaults);
  if (defaults.localTheta === null) return { full: main, sliding: main };
  // Scaling belongs to the full attention layers alone where the family has a base of its own for the local ones.
  const localTheta = fields.positiveNumber('rope_local_base_freq', defaults.localTheta);
  const unscaled = new ConfigFields({ rope_theta: localTheta }, fields.source);
  return { full: main, sliding: parseOne(fields, unscaled, localTheta, defaults) };
}

/** One set of parameters; what it lacks is taken from the config's top level, then from the defaults. */
function parseOne(
  fields: ConfigFields,
  scaling: ConfigFields | null,
  theta: number,
  defaults: RopeDefaults,
): RopeParameters {
  const own = scaling ?? new ConfigFields({}, fields.source);
  const ropeType = parseType(own);
  for (const name of REQUIRED[ropeType]) {
    if (!own.has(name)) throw own.error(name, `is missing; rope type "${ropeType}" needs it`);
  }
  const original =
    fields.positiveNumberOrNull('original_max_position_embeddings') ??
    own.positiveNumberOrNull('original_max_position_embeddings') ??
    defaults.maxPositionEmbeddings;
  const rope: RopeParameters = {
    ropeType,
    theta: own.positiveNumber('rope_theta', fields.positiveNumber('rope_theta', theta)),
    partialRotaryFactor: own.positiveNumber('partial_rotary_factor', fields.positiveNumber('partial_rotary_factor', 1)),
    factor: own.positiveNumber('factor', defaults.maxPositionEmbeddings / original),
    originalMaxPositionEmbeddings: original,
    lowFreqFactor: own.positiveNumber('low_freq_factor', 1),
    highFreqFactor: own.positiveNumber('high_freq_factor', 4),
    betaFast: own.positiveNumber('beta_fast', 32),
    betaSlow: own.positiveNumber('beta_slow', 1),
    attentionFactor: own.positiveNumberOrNull('attention_factor'),
    mscale: own.multiplierOrNull('mscale'),
    mscaleAllDim: own.multiplierOrNull('mscale_all_dim'),
    truncate: own.boolean('truncate', true),
    shortFactor: own.positiveNumbersOrNull('short_factor'),
    longFactor: own.positiveNumbersOrNull('long_factor'),
  };
  checkLengths(own, rope, defaults.headDim);
  return rope;
}

function parseType(own: ConfigFields): RopeType {
  const field = own.has('rope_type') ? 'rope_type' : 'type';
  const name = own.string(field, 'default');
  const type = OLD_ROPE_TYPES[name] ?? name;
  const known = ROPE_TYPES.find((candidate) => candidate === type);
  if (known === undefined) throw own.error(field, `is "${name}"; known rope types: ${ROPE_TYPES.join(', ')}`);
  return known;
}

function checkLengths(own: ConfigFields, rope: RopeParameters, headDim: number): void {
  if (rope.partialRotaryFactor > 1) {
    throw own.error('partial_rotary_factor', `is ${rope.partialRotaryFactor}; expected at most 1`);
  }
  const pairs = Math.trunc(headDim * rope.partialRotaryFactor) / 2;
  for (const [name, list] of [
    ['short_factor', rope.shortFactor],
    ['long_factor', rope.longFactor],
  ] as const) {
    if (list !== null && list.length !== pairs) {
      throw own.error(name, `has ${list.length} numbers; expected ${pairs}, one for each rotated pair of a head`);
    }
  }
}
