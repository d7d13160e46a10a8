import type { ReplaceableLinear } from '../layers/linear-adapters.ts';
import { LoadError } from '../loader/load-error.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import { moduleNames } from './module-names.ts';
import type { PeftConfig } from './peft-config.ts';

/** Linear layers that adapters may change: module name to the shape of its matrix. */
export type LoRAModules = ReadonlyMap<string, readonly [rows: number, cols: number]>;

/** What of a model an adapter may change. */
export interface AdaptableModules {
  /** Layers that it may add to. */
  linear: LoRAModules;
  /** Layers in whose place it may bring its own: those of a head for classes. */
  replaceable: ReadonlyMap<string, Pick<ReplaceableLinear, 'shape' | 'maxRows' | 'bias'>>;
}

/** What an adapter adds to one module: scale * B · A. */
export interface ModuleWeights {
  rank: number;
  scale: number;
  /** [rank, input features] */
  a: TensorView;
  /** [output features, rank] */
  b: TensorView;
}

/** A layer that an adapter was saved with, in place of the model's. */
export interface SavedWeights {
  weight: TensorView;
  bias: TensorView | null;
}

/** By module, in the model's names. */
export interface AdapterWeights {
  linear: ReadonlyMap<string, ModuleWeights>;
  saved: ReadonlyMap<string, SavedWeights>;
}

/** Names of tensors by what they are for. */
interface TensorNames {
  linear: Map<string, { A?: string; B?: string }>;
  saved: Map<string, { weight?: string; bias?: string }>;
}

const TENSOR = /^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$/;
const SAVED_TENSOR = /^(?:base_model\.model\.)?(.+?)(?:\.modules_to_save(?:\.default)?)?\.(weight|bias)$/;
/** Behind BERT, and run only in front of its classes: where there are none it changes nothing. */
const POOLER = /(?:^|\.)pooler\.dense$/;
const MAX_NAMED = 8;

/**
 * The weights of a PEFT adapter by module, checked against the model: every tensor has a place, every module that the configuration names has both
 * tensors, of the right shapes, and no rank is above `maxRank`.
 *
 * @throws LoadError that names the tensor or module
 */
export function collectAdapterWeights(
  source: WeightSource,
  config: PeftConfig,
  modules: AdaptableModules,
  maxRank: number,
): AdapterWeights {
  const { names, linear, saved } = sortTensors(source, config, modules);
  const savedWeights = new Map(
    [...saved].map(([module, pair]) => [module, savedLayer(source, config, module, pair, modules)]),
  );
  const collected = new Map<string, ModuleWeights>();
  for (const [module, [rows, cols]] of modules.linear) {
    const { A, B } = linear.get(module) ?? {};
    const adapterName = names.toAdapter(module);
    if (A === undefined && B === undefined) {
      if (config.targets?.(adapterName) && !saved.has(module))
        throw new LoadError(`${module}: the adapter targets it, but has no lora_A and lora_B for it.`);
      continue;
    }
    if (A === undefined || B === undefined) {
      throw new LoadError(`${module}: lora_${A === undefined ? 'A' : 'B'} is missing beside ${A ?? B}.`);
    }
    const rank = config.rankOf(adapterName);
    if (rank > maxRank) throw new LoadError(`LoRA rank ${rank} is greater than max_lora_rank ${maxRank}.`);
    collected.set(module, {
      rank,
      scale: config.scaleOf(adapterName),
      a: matching(source, A, [rank, cols], config),
      b: matching(source, B, [rows, rank], config),
    });
  }
  if (collected.size === 0) throw new LoadError('The adapter has no weights.');
  return { linear: collected, saved: savedWeights };
}

/** Throws LoadError for a tensor without a place in the model. */
function sortTensors(source: WeightSource, config: PeftConfig, modules: AdaptableModules) {
  const tensors = source.names().map((name) => {
    const [, module, letter] = TENSOR.exec(name) ?? [];
    return { name, module, letter };
  });
  const names = moduleNames(
    tensors.flatMap(({ module }) => module ?? []),
    modules.linear,
  );
  const sorted: TensorNames = { linear: new Map(), saved: new Map() };
  for (const { name, module, letter } of tensors) {
    if (module === undefined) addSaved(sorted.saved, name, config, modules);
    else if (modules.linear.has(names.toModel(module))) add(sorted.linear, names.toModel(module), letter!, name);
    else if (!POOLER.test(module)) throw new LoadError(withoutPlace(name, module, modules.linear));
  }
  return { names, ...sorted };
}

function add<Key extends string>(
  to: Map<string, Partial<Record<Key, string>>>,
  module: string,
  key: string,
  name: string,
): void {
  to.set(module, { ...to.get(module), [key]: name } as Partial<Record<Key, string>>);
}

function addSaved(saved: TensorNames['saved'], name: string, config: PeftConfig, modules: AdaptableModules): void {
  const [, module, kind] = SAVED_TENSOR.exec(name) ?? [];
  const isSaved = config.modulesToSave.some((each) => module === each || module?.startsWith(`${each}.`));
  if (module === undefined || !isSaved) throw new LoadError(withoutPlace(name, undefined, modules.linear));
  if (!modules.replaceable.has(module)) {
    throw new LoadError(`tensor "${name}": the model has no layer ${module} that an adapter may bring in its place.`);
  }
  add(saved, module, kind!, name);
}

function savedLayer(
  source: WeightSource,
  config: PeftConfig,
  module: string,
  { weight, bias }: { weight?: string; bias?: string },
  { replaceable }: AdaptableModules,
): SavedWeights {
  const { shape, maxRows, bias: hasBias } = replaceable.get(module)!;
  if (weight === undefined) throw new LoadError(`${module}.weight is missing beside ${bias}.`);
  if (bias === undefined && hasBias) throw new LoadError(`${module}.bias is missing beside ${weight}.`);
  const rows = classesOf(source, weight, shape, maxRows);
  return {
    weight: matching(source, weight, [rows, shape[1]], config),
    bias: bias === undefined ? null : matching(source, bias, [rows], config),
  };
}

/** Rows of a matrix that may have its own number of them. Throws LoadError for too many. */
function classesOf(
  source: WeightSource,
  name: string,
  [modelRows]: readonly [number, number],
  maxRows: number | null,
): number {
  const { shape } = source.get(name);
  const rows = shape[0] ?? 0;
  if (rows === modelRows || shape.length !== 2 || rows === 0 || maxRows === null) return modelRows;
  if (rows <= maxRows) return rows;
  throw new LoadError(
    `tensor "${name}" has ${rows} classes, more than ${maxRows}; --max-lora-cls-labels says how many an adapter's head may have.`,
  );
}

function withoutPlace(name: string, module: string | undefined, modules: LoRAModules): string {
  if (/\b(?:embed_tokens|lm_head)\b/.test(name)) {
    return `tensor "${name}": adapters of the embedding and of the output layer are not served.`;
  }
  if (/\bexperts?\b/.test(name) && !/shared_experts?\b/.test(name)) {
    return `tensor "${name}": adapters of the experts of a mixture are not served.`;
  }
  if (module === undefined) return `tensor "${name}": expected the lora_A or lora_B of a linear layer.`;
  const known = [...new Set([...modules.keys()].map((each) => each.slice(each.lastIndexOf('.') + 1)))];
  const last = module.slice(module.lastIndexOf('.') + 1);
  const place = known.includes(last)
    ? `the model has no module ${module}`
    : `expected target modules in ${known.join(', ')}`;
  return `tensor "${name}": ${place}. Please verify that the adapter was made for this model.`;
}

function matching(source: WeightSource, name: string, shape: readonly number[], { baseModel }: PeftConfig): TensorView {
  const tensor = source.get(name);
  if (String(tensor.shape) === String(shape)) return tensor;
  const made = baseModel === null ? '' : ` It was made for ${baseModel.slice(0, 200)}.`;
  const found = tensor.shape.slice(0, MAX_NAMED).join(', ');
  throw new LoadError(`tensor "${name}" has shape [${found}], expected [${shape.join(', ')}].${made}`);
}
