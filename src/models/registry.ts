import type { ModelFactory } from './model-context.ts';

/** Architectures by the name in config.json. A model file is imported when it is asked for. */
const MODELS = new Map<string, () => Promise<{ createModel: ModelFactory }>>([
  ['DeepseekV3ForCausalLM', () => import('./deepseek-v3.ts')],
  ['Gemma2ForCausalLM', () => import('./gemma2.ts')],
  ['Gemma3ForCausalLM', () => import('./gemma3.ts')],
  ['GptOssForCausalLM', () => import('./gpt-oss.ts')],
  ['GraniteForCausalLM', () => import('./granite.ts')],
  ['LlamaForCausalLM', () => import('./llama.ts')],
  ['MistralForCausalLM', () => import('./mistral.ts')],
  ['MixtralForCausalLM', () => import('./mixtral.ts')],
  ['Olmo2ForCausalLM', () => import('./olmo2.ts')],
  ['Phi3ForCausalLM', () => import('./phi3.ts')],
  ['Qwen2ForCausalLM', () => import('./qwen2.ts')],
  ['Qwen3ForCausalLM', () => import('./qwen3.ts')],
  ['Qwen3MoeForCausalLM', () => import('./qwen3-moe.ts')],
  ['SmolLM3ForCausalLM', () => import('./smollm3.ts')],
]);

/** Adds a model, or replaces one: for plugins. */
export function registerModel(architecture: string, createModel: ModelFactory): void {
  MODELS.set(architecture, () => Promise.resolve({ createModel }));
}

/** Names of all architectures that can be served, sorted. */
export function supportedArchitectures(): string[] {
  return [...MODELS.keys()].sort();
}

/** The first of the names that is known, or an Error that lists what is. For a check before weights are read. */
export function resolveArchitecture(architectures: readonly string[]): string {
  const known = architectures.find((name) => MODELS.has(name));
  if (known !== undefined) return known;
  throw new Error(
    `Model architecture ${architectures.join(', ')} is not supported; supported are ${supportedArchitectures().join(', ')}.`,
  );
}

/** The factory of the first known architecture. Throws an Error that lists what is known. */
export async function modelFactory(architectures: readonly string[]): Promise<ModelFactory> {
  const { createModel } = await MODELS.get(resolveArchitecture(architectures))!();
  return createModel;
}
