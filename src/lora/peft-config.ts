import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LoadError } from '../loader/load-error.ts';
import { ConfigFields, isJsonObject, type JsonObject, show } from '../models/config-fields.ts';

export const CONFIG_FILE = 'adapter_config.json';

/** What adapter_config.json says of a PEFT adapter. */
export interface PeftConfig {
  /** The model that it was trained on, for errors. */
  baseModel: string | null;
  rankOf(module: string): number;
  /** What the product of A and B is multiplied with. */
  scaleOf(module: string): number;
  /** Whether a linear layer is to be changed; null where that can't be told from here, so that the tensors decide. */
  targets: ((module: string) => boolean) | null;
  /** Modules that the adapter brings in place of the model's. */
  modulesToSave: string[];
}

/** Members that change what an adapter computes in ways that are not served. An absent, empty or false one changes nothing. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  use_dora: 'weight-decomposed adapters (DoRA) are not served',
  lora_bias: 'biases of B are not served',
  target_parameters: 'adapters of parameters that are no linear layers are not served',
  trainable_token_indices: 'retrained embeddings are not served',
  layer_replication: 'replicated layers are not served',
  alora_invocation_tokens: 'activated adapters (aLoRA) are not served',
  use_qalora: 'QA-LoRA is not served',
  use_bdlora: 'block-diagonal adapters are not served',
  arrow_config: 'Arrow routing is not served',
};

/** Throws LoadError for a file that can't be read, HfConfigError that names the member at fault. */
export function readPeftConfig(folder: string): PeftConfig {
  const source = join(folder, CONFIG_FILE);
  return parsePeftConfig(readJson(source), source);
}

/** Throws HfConfigError that names the member at fault. */
export function parsePeftConfig(raw: JsonObject, source: string): PeftConfig {
  const fields = new ConfigFields(raw, source);
  refuseUnsupported(fields);
  const rank = fields.positiveInt('r');
  const alpha = fields.positiveNumber('lora_alpha');
  const isRankStabilized = fields.boolean('use_rslora', false);
  const ranks = pattern(fields, 'rank_pattern', 'positiveInt');
  const alphas = pattern(fields, 'alpha_pattern', 'positiveNumber');
  const rankOf = (module: string) => ranks(module) ?? rank;
  return {
    baseModel: fields.has('base_model_name_or_path') ? fields.string('base_model_name_or_path') : null,
    rankOf,
    scaleOf: (module) => (alphas(module) ?? alpha) / (isRankStabilized ? Math.sqrt(rankOf(module)) : rankOf(module)),
    targets: targetsOf(fields),
    modulesToSave: modulesToSaveOf(fields),
  };
}

function readJson(path: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new LoadError(`${path} can't be read as JSON: ${(error as Error).message}.`, { cause: error });
  }
  if (!isJsonObject(value)) throw new LoadError(`${path} must hold a JSON object.`);
  return value;
}

function refuseUnsupported(fields: ConfigFields): void {
  const type = fields.string('peft_type', 'LORA');
  if (type !== 'LORA') throw fields.error('peft_type', `is ${show(type)}; only LORA is served`);
  const bias = fields.string('bias', 'none');
  if (bias !== 'none') throw fields.error('bias', `is ${show(bias)}; only "none" is served`);
  for (const [name, why] of Object.entries(UNSUPPORTED)) {
    const value = fields.raw[name];
    const isOff = value === undefined || value === null || value === false || isEmpty(value);
    if (!isOff) throw fields.error(name, `is ${show(value)}: ${why}`);
  }
}

/** What PEFT saves beside adapters for classes, whichever of the two the model has. */
const HEADS = ['classifier', 'score'];

function modulesToSaveOf(fields: ConfigFields): string[] {
  if (!fields.has('modules_to_save')) return [];
  const modules = fields.strings('modules_to_save');
  const other = modules.find((module) => !HEADS.includes(module));
  if (other === undefined) return modules;
  throw fields.error('modules_to_save', `has ${show(other)}; beside the adapter only ${HEADS.join(' or ')} is served`);
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

/** Values by module: a key is the end of a name, or a regular expression for it; the first that matches counts. */
function pattern(
  fields: ConfigFields,
  name: string,
  kind: 'positiveInt' | 'positiveNumber',
): (module: string) => number | undefined {
  const members = fields.object(name);
  if (members === null) return () => undefined;
  const entries = Object.keys(members.raw).map((key) => {
    const matcher = expression(`(?:.*\\.)?(?:${key})`);
    if (matcher === null) throw fields.error(name, `has the key ${show(key)}, which is no regular expression`);
    return [matcher, members[kind](key)] as const;
  });
  return (module) => entries.find(([matcher]) => matcher.test(module))?.[1];
}

/** PEFT's rule: a text is a regular expression for the whole name, a list has names or their last parts. */
function targetsOf(fields: ConfigFields): PeftConfig['targets'] {
  const isTarget = matcherOf(fields, 'target_modules');
  const isExcluded = fields.has('exclude_modules') ? matcherOf(fields, 'exclude_modules') : () => false;
  if (isTarget === null || isExcluded === null) return null;
  const isInLayer = layersOf(fields);
  return (module) => !isExcluded(module) && isTarget(module) && isInLayer(module);
}

function matcherOf(fields: ConfigFields, name: string): ((module: string) => boolean) | null {
  const value = fields.raw[name];
  if (typeof value === 'string') {
    if (value === 'all-linear') return () => true;
    // Python's expressions are nearly JavaScript's; of one that is not, the tensors tell what it matched.
    const whole = expression(value);
    return whole === null ? null : (module) => whole.test(module);
  }
  const names = fields.strings(name);
  return (module) => names.some((each) => module === each || module.endsWith(`.${each}`));
}

/** With `layers_to_transform` only modules in layers of these numbers count. */
function layersOf(fields: ConfigFields): (module: string) => boolean {
  if (!fields.has('layers_to_transform')) return () => true;
  const value = fields.raw.layers_to_transform;
  const layers =
    typeof value === 'number'
      ? [fields.nonNegativeInt('layers_to_transform')]
      : fields.nonNegativeInts('layers_to_transform', []);
  const containers =
    typeof fields.raw.layers_pattern === 'string'
      ? [fields.string('layers_pattern')]
      : fields.strings('layers_pattern', []);
  return (module) => {
    const found = [...module.matchAll(/(?<=^|\.)([^.]+)\.(\d+)(?=\.)/g)];
    return found.some(
      ([, container, number]) =>
        (containers.length === 0 || containers.includes(container!)) && layers.includes(Number(number)),
    );
  };
}

function expression(source: string): RegExp | null {
  try {
    return new RegExp(`^(?:${source})$`);
  } catch {
    return null;
  }
}
