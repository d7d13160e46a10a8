import type { FloatDType } from '../device/dtype.ts';
import type { RopeParameters } from '../layers/rope-parameters.ts';
import { ConfigFields, HfConfigError, isJsonObject, type JsonObject, show } from './config-fields.ts';
import { type FamilyDefaults, familyDefaults, smolLm3Rotates } from './family-defaults.ts';
import type { HfConfig } from './hf-config.ts';
import { parseRope, type RopeByLayerType } from './parse-rope.ts';

const DTYPES: readonly FloatDType[] = ['float32', 'bfloat16', 'float16'];

/** Far above any model's: what a layer's objects take is refused before it fills the memory. */
const MAX_HIDDEN_LAYERS = 10_000;

/**
 * Checks a parsed config.json and fills in the family's defaults. Both forms are read, of transformers 4 (`rope_theta`, `rope_scaling`,
 * `torch_dtype`) and 5 (`rope_parameters`, `dtype`).
 *
 * @param source the file, for errors
 * @throws HfConfigError, one sentence that names the field
 */
export function parseHfConfig(raw: unknown, source: string): HfConfig {
  if (!isJsonObject(raw)) throw new HfConfigError(source, `expected a JSON object, got ${show(raw)}`);
  const modelType = new ConfigFields(raw, source).string('model_type', '');
  const family = familyDefaults(modelType);
  const fields = new ConfigFields(withCommonNames(raw, family), source);
  const architectures = fields.strings('architectures');
  if (architectures.length === 0) throw fields.error('architectures', 'is empty; expected the name of a model class');

  const heads = parseHeads(fields, family);
  const numHiddenLayers = fields.positiveInt('num_hidden_layers');
  if (numHiddenLayers > MAX_HIDDEN_LAYERS) {
    throw fields.error('num_hidden_layers', `is ${numHiddenLayers}; expected at most ${MAX_HIDDEN_LAYERS}`);
  }
  const maxPositionEmbeddings = fields.positiveInt('max_position_embeddings', family.maxPositionEmbeddings);
  const window = parseSlidingWindow(fields, family);
  const isSliding = parseLayerTypes(fields, family, numHiddenLayers).map((sliding) => sliding && window > 0);
  const rope = parseRope(fields, {
    theta: family.ropeTheta,
    localTheta: family.ropeLocalTheta,
    maxPositionEmbeddings,
    headDim: heads.headDim,
  });

  return {
    raw,
    architectures,
    modelType,
    vocabSize: fields.positiveInt('vocab_size'),
    ...heads,
    intermediateSize: fields.positiveInt('intermediate_size'),
    numHiddenLayers,
    hiddenAct: fields.string('hidden_activation', fields.string('hidden_act', family.hiddenAct)),
    rmsNormEps: fields.positiveNumber('rms_norm_eps', family.rmsNormEps),
    maxPositionEmbeddings,
    firstPosition:
      family.paddingTokenId === null ? 0 : fields.nonNegativeInt('pad_token_id', family.paddingTokenId) + 1,
    tieWordEmbeddings: fields.boolean('tie_word_embeddings', family.tieWordEmbeddings),
    attentionBias: fields.boolean('attention_bias', false),
    mlpBias: fields.boolean('mlp_bias', false),
    rope: rope.full,
    layerRopes: family.isRotary ? parseLayerRopes(fields, modelType, isSliding, rope) : isSliding.map(() => null),
    slidingWindows: isSliding.map((sliding) => (sliding ? window : 0)),
    bosTokenId: fields.has('bos_token_id') ? fields.nonNegativeInt('bos_token_id') : defaultBos(fields, family),
    eosTokenIds: fields.tokenIds('eos_token_id', fields.raw.eos_token_id === null ? [] : family.eosTokenIds),
    torchDtype: parseDtype(fields),
  };
}

/** The family's own names of fields beside the common ones. */
function withCommonNames(raw: JsonObject, { renamedFields }: FamilyDefaults): JsonObject {
  const named: Record<string, unknown> = { ...raw };
  for (const [own, common] of Object.entries(renamedFields)) if (own in raw) named[common] = raw[own];
  return named;
}

function parseHeads(fields: ConfigFields, family: FamilyDefaults) {
  const hiddenSize = fields.positiveInt('hidden_size');
  const numAttentionHeads = fields.positiveInt('num_attention_heads');
  // An explicit null means "as many as attention heads" in every family.
  const kvDefault = fields.raw.num_key_value_heads === null ? null : family.numKeyValueHeads;
  const numKeyValueHeads = fields.positiveInt('num_key_value_heads', kvDefault ?? numAttentionHeads);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    throw fields.error(
      'num_attention_heads',
      `is ${numAttentionHeads}; expected a multiple of num_key_value_heads, which is ${numKeyValueHeads}`,
    );
  }
  const headDim = fields.positiveInt(family.headDimField, family.headDim ?? hiddenSize / numAttentionHeads);
  if (!Number.isInteger(headDim)) {
    throw fields.error(
      'hidden_size',
      `is ${hiddenSize}; without head_dim, expected a multiple of num_attention_heads, which is ${numAttentionHeads}`,
    );
  }
  return { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim };
}

/** For each layer whether it attends through the sliding window, where there is one. */
function parseLayerTypes(fields: ConfigFields, family: FamilyDefaults, numHiddenLayers: number): boolean[] {
  if (!fields.has('layer_types')) {
    return Array.from({ length: numHiddenLayers }, (_, layer) => family.isSlidingLayer(layer, fields));
  }
  const types = fields.strings('layer_types');
  if (types.length !== numHiddenLayers) {
    throw fields.error(
      'layer_types',
      `has ${types.length} entries; expected num_hidden_layers, which is ${numHiddenLayers}`,
    );
  }
  return types.map((type) => {
    if (type === 'sliding_attention') return true;
    if (type === 'full_attention') return false;
    throw fields.error('layer_types', `has "${type}"; known layer types: full_attention, sliding_attention`);
  });
}

/** Window in tokens, 0: none. A null in the file means none, whatever the family's default. */
function parseSlidingWindow(fields: ConfigFields, family: FamilyDefaults): number {
  if (family.slidingWindowIsOptIn && !fields.boolean('use_sliding_window', false)) return 0;
  if (fields.raw.sliding_window === null) return 0;
  return fields.nonNegativeInt('sliding_window', family.slidingWindow ?? 0);
}

function parseLayerRopes(
  fields: ConfigFields,
  modelType: string,
  isSliding: readonly boolean[],
  rope: RopeByLayerType,
): (RopeParameters | null)[] {
  const ropes = isSliding.map((sliding) => (sliding ? rope.sliding : rope.full));
  if (modelType !== 'smollm3') return ropes;
  return ropes.map((layerRope, layer) => (smolLm3Rotates(layer, fields) ? layerRope : null));
}

function defaultBos(fields: ConfigFields, family: FamilyDefaults): number | null {
  return fields.raw.bos_token_id === null ? null : family.bosTokenId;
}

function parseDtype(fields: ConfigFields): FloatDType {
  const field = fields.has('dtype') ? 'dtype' : 'torch_dtype';
  const name = fields.string(field, 'float32').replace(/^torch\./, '');
  const dtype = DTYPES.find((known) => known === name);
  if (dtype === undefined) throw fields.error(field, `is "${name}"; known types: ${DTYPES.join(', ')}`);
  return dtype;
}
