import { randomFloats } from '../device/harness.ts';
import { encodeFloats } from '../loader/safetensors-file.ts';

export type Tensors = Record<string, { shape: number[]; values: number[] }>;

/** The configuration of an adapter of rank 4. */
export const CONFIG = {
  peft_type: 'LORA',
  base_model_name_or_path: 'a-model',
  r: 4,
  lora_alpha: 8,
  bias: 'none',
  target_modules: 'all-linear',
};

/** Random A and B for modules, under PEFT's names. */
export function adapterTensors(
  modules: Iterable<readonly [string, readonly [number, number]]>,
  rank: number,
  seed: number,
): Tensors {
  const tensors: Tensors = {};
  let next = seed * 1000;
  for (const [module, [rows, cols]] of modules) {
    const name = `base_model.model.${module}`;
    tensors[`${name}.lora_A.weight`] = { shape: [rank, cols], values: small(rank * cols, next++) };
    tensors[`${name}.lora_B.weight`] = { shape: [rows, rank], values: small(rows * rank, next++) };
  }
  return tensors;
}

/** Files of an adapter folder. */
export function adapterFiles(tensors: Tensors, config: object = CONFIG): Record<string, string | Uint8Array> {
  return { 'adapter_config.json': JSON.stringify(config), 'adapter_model.safetensors': encodeFloats(tensors) };
}

const small = (length: number, seed: number) => [...randomFloats(length, seed)].map((value) => value / 4);
