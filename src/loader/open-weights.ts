import type { FloatDType } from '../device/dtype.ts';
import { openDummyWeights } from './dummy.ts';
import { LoadError } from './load-error.ts';
import { openSafetensors } from './safetensors.ts';
import type { WeightSource } from './weight-source.ts';

export interface OpenWeightsOptions {
  /** `--load-format`: auto, safetensors, dummy, or one that a plugin registered. */
  loadFormat: string;
  /** Seed of `dummy`. Default 0. */
  seed?: number;
  /** Element type of `dummy`. Default bfloat16. */
  dtype?: FloatDType;
}

/** What `--load-format NAME` does: opens the weights of a folder. */
export type LoadFormat = (folder: string, options: OpenWeightsOptions) => WeightSource | Promise<WeightSource>;

const formats = new Map<string, LoadFormat>([
  ['auto', openSafetensors],
  ['safetensors', openSafetensors],
  ['dummy', (_folder, { seed, dtype }) => openDummyWeights({ seed: seed ?? 0, dtype: dtype ?? 'bfloat16' })],
]);

/** Adds a `--load-format`. Throws when the name is taken. */
export function registerLoadFormat(name: string, open: LoadFormat): void {
  if (formats.has(name)) throw new Error(`Load format "${name}" is registered already.`);
  formats.set(name, open);
}

/** Names of `--load-format`, sorted. */
export function loadFormats(): string[] {
  return [...formats.keys()].sort();
}

/**
 * Opens the weights of a model folder.
 *
 * @throws LoadError that names the file and the tensor, or the known formats
 */
export async function openWeights(folder: string, options: OpenWeightsOptions): Promise<WeightSource> {
  const open = formats.get(options.loadFormat);
  if (open === undefined) {
    throw new LoadError(`Unknown load format "${options.loadFormat}"; known are ${loadFormats().join(', ')}.`);
  }
  return open(folder, options);
}
