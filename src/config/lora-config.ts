import type { FloatDType } from '../device/dtype.ts';
import { UsageError } from './config-error.ts';
import type { GroupValues } from './flags/index.ts';
import { isJsonObject } from './parse-value.ts';

/** vLLM's. */
const RANKS = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/** An adapter that is loaded at the start. */
export interface LoRAModule {
  /** From 1, in the order of the flag. */
  id: number;
  /** What clients call it. */
  name: string;
  /** Folder with adapter_config.json and adapter_model.safetensors. */
  path: string;
  /** As the operator wrote it. */
  root: string;
  /** Which of the served names it belongs to; null: the first. */
  baseModelName: string | null;
}

export interface LoRAConfig extends Omit<GroupValues<'lora'>, 'loraModules' | 'maxCpuLoras' | 'loraDtype'> {
  modules: LoRAModule[];
  maxCpuLoras: number;
  loraDtype: FloatDType;
}

/** The flags against each other. Throws UsageError. */
export function checkLoRAFlags({
  enableLora,
  loraModules,
  maxLoras,
  maxCpuLoras,
  maxLoraRank,
}: GroupValues<'lora'>): void {
  if (!enableLora && loraModules.length > 0) throw new UsageError('--lora-modules needs --enable-lora.');
  if (maxCpuLoras !== null && maxCpuLoras < maxLoras) {
    throw new UsageError(
      `--max-cpu-loras ${maxCpuLoras} is less than --max-loras ${maxLoras}: those of one step are all in memory.`,
    );
  }
  if (!RANKS.includes(maxLoraRank)) {
    throw new UsageError(`--max-lora-rank must be one of ${RANKS.join(', ')}, not ${maxLoraRank}.`);
  }
}

export type LoRAModuleArgs = Pick<LoRAModule, 'name' | 'root' | 'baseModelName'>;

/** One word of `--lora-modules`: name=path, or a JSON object. Throws UsageError. */
export function parseLoRAModule(word: string): LoRAModuleArgs {
  const [, plainName, plainPath] = /^([^=,{]+)=([^,]+)$/.exec(word) ?? [];
  if (plainName !== undefined) return { name: plainName, root: plainPath!, baseModelName: null };
  const wrong = (problem: string) =>
    new UsageError(
      `--lora-modules: ${problem} in ${word}; it takes name=path or {"name": …, "path": …, "base_model_name": …}.`,
    );
  let value: unknown;
  try {
    value = JSON.parse(word);
  } catch {
    throw wrong('no JSON');
  }
  if (!isJsonObject(value)) throw wrong('no JSON object');
  const { name, path, base_model_name: baseModelName = null, ...others } = value;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw wrong(`the unknown member ${unknown}`);
  if (typeof name !== 'string' || name === '') throw wrong('no name');
  if (typeof path !== 'string' || path === '') throw wrong('no path');
  if (baseModelName !== null && typeof baseModelName !== 'string') throw wrong('a base_model_name that is no text');
  return { name, root: path, baseModelName };
}

/** Names that clients could not tell apart, or a base that is not served. Throws UsageError. */
export function checkLoRAModules(modules: readonly LoRAModuleArgs[], servedModelNames: readonly string[]): void {
  const names = new Set(servedModelNames);
  for (const { name, baseModelName } of modules) {
    if (names.has(name)) throw new UsageError(`--lora-modules: the name ${name} is taken already.`);
    names.add(name);
    if (baseModelName !== null && !servedModelNames.includes(baseModelName)) {
      throw new UsageError(
        `--lora-modules: base_model_name ${baseModelName} of ${name} is not served; ${servedModelNames.join(', ')} is.`,
      );
    }
  }
}
