import { LoadError } from '../loader/load-error.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import type { PeftConfig } from './peft-config.ts';

/** Linear layers that adapters may change: module name to the shape of its matrix. */
export type LoRAModules = ReadonlyMap<string, readonly [rows: number, cols: number]>;

/** What an adapter adds to one module: scale * B · A. */
export interface ModuleWeights {
  rank: number;
  scale: number;
  /** [rank, input features] */
  a: TensorView;
  /** [output features, rank] */
  b: TensorView;
}

const TENSOR = /^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$/;
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
  modules: LoRAModules,
  maxRank: number,
): Map<string, ModuleWeights> {
  const names = tensorNames(source, modules);
  const collected = new Map<string, ModuleWeights>();
  for (const [module, [rows, cols]] of modules) {
    const { A, B } = names.get(module) ?? {};
    if (A === undefined && B === undefined) {
      if (config.targets?.(module))
        throw new LoadError(`${module}: the adapter targets it, but has no lora_A and lora_B for it.`);
      continue;
    }
    if (A === undefined || B === undefined) {
      throw new LoadError(`${module}: lora_${A === undefined ? 'A' : 'B'} is missing beside ${A ?? B}.`);
    }
    const rank = config.rankOf(module);
    if (rank > maxRank) throw new LoadError(`LoRA rank ${rank} is greater than max_lora_rank ${maxRank}.`);
    collected.set(module, {
      rank,
      scale: config.scaleOf(module),
      a: matching(source, A, [rank, cols], config),
      b: matching(source, B, [rows, rank], config),
    });
  }
  if (collected.size === 0) throw new LoadError('The adapter has no weights.');
  return collected;
}

/** Each module's tensors by their letter. Throws LoadError for a tensor without a place in the model. */
function tensorNames(source: WeightSource, modules: LoRAModules): Map<string, { A?: string; B?: string }> {
  const found = new Map<string, { A?: string; B?: string }>();
  for (const name of source.names()) {
    const [, module, letter] = TENSOR.exec(name) ?? [];
    if (module === undefined || !modules.has(module)) throw new LoadError(withoutPlace(name, module, modules));
    const pair = found.get(module) ?? {};
    pair[letter as 'A' | 'B'] = name;
    found.set(module, pair);
  }
  return found;
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

function matching(
  source: WeightSource,
  name: string,
  shape: readonly [number, number],
  { baseModel }: PeftConfig,
): TensorView {
  const tensor = source.get(name);
  if (String(tensor.shape) === String(shape)) return tensor;
  const made = baseModel === null ? '' : ` It was made for ${baseModel.slice(0, 200)}.`;
  const found = tensor.shape.slice(0, MAX_NAMED).join(', ');
  throw new LoadError(`tensor "${name}" has shape [${found}], expected [${shape.join(', ')}].${made}`);
}
