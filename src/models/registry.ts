import type { ModelFactory, PoolingModelFactory } from './model-context.ts';

/** Decoder architectures by the name in config.json. A model file is imported when it is asked for. */
const DECODERS = new Map<string, () => Promise<{ createModel: ModelFactory }>>([
  ['DeepseekV3ForCausalLM', () => import('./deepseek-v3.ts')],
  ['GemmaForCausalLM', () => import('./gemma.ts')],
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

/** Encoders by what their architectures begin with. */
const ENCODERS = new Map<string, () => Promise<{ createModel: PoolingModelFactory }>>([
  ['Bert', () => import('./bert.ts')],
  ['ModernBert', () => import('./modernbert.ts')],
  ['Roberta', () => import('./roberta.ts')],
  ['XLMRoberta', () => import('./roberta.ts')],
]);

/** What an architecture can be asked for beside its body: the next token, classes, or nothing. */
type Head = 'lm' | 'classifier' | 'none';

/** Ends of architectures' names. A masked LM head is of no use here: what it was trained with is. */
const SUFFIXES: Readonly<Record<string, Head>> = {
  ForCausalLM: 'lm',
  ForSequenceClassification: 'classifier',
  ForMaskedLM: 'none',
  Model: 'none',
};

/** An architecture that can be served. */
export interface Architecture {
  /** As in config.json: "Qwen3ForSequenceClassification". */
  name: string;
  kind: 'decoder' | 'encoder';
  head: Head;
  /** Of the registered model that it is: "Qwen3ForCausalLM", "Bert". */
  base: string;
}

/** Adds a decoder, or replaces one: for plugins. */
export function registerModel(architecture: string, createModel: ModelFactory): void {
  DECODERS.set(architecture, () => Promise.resolve({ createModel }));
}

/** Names of all architectures that can be served, sorted; decoders without their variants for pooling. */
export function supportedArchitectures(): string[] {
  const encoders = [...ENCODERS.keys()].flatMap((name) => [`${name}Model`, `${name}ForSequenceClassification`]);
  return [...DECODERS.keys(), ...encoders].sort();
}

/** The first of the names that is known, or an Error that lists what is. For a check before weights are read. */
export function resolveArchitecture(architectures: readonly string[]): Architecture {
  const known = findArchitecture(architectures);
  if (known !== null) return known;
  throw new Error(
    `Model architecture ${architectures.join(', ')} is not supported; supported are ${supportedArchitectures().join(', ')}.`,
  );
}

/** The first of the names that is known; null where none is. */
export function findArchitecture(architectures: readonly string[]): Architecture | null {
  for (const name of architectures) {
    const known = parseArchitecture(name);
    if (known !== null) return known;
  }
  return null;
}

function parseArchitecture(name: string): Architecture | null {
  if (DECODERS.has(name)) return { name, kind: 'decoder', head: 'lm', base: name };
  for (const [suffix, head] of Object.entries(SUFFIXES)) {
    if (!name.endsWith(suffix)) continue;
    const stem = name.slice(0, -suffix.length);
    if (ENCODERS.has(stem) && head !== 'lm') return { name, kind: 'encoder', head, base: stem };
    const decoder = `${stem}ForCausalLM`;
    if (DECODERS.has(decoder)) return { name, kind: 'decoder', head, base: decoder };
  }
  return null;
}

/** The factory of the first known architecture. Throws an Error that lists what is known, or says that the model does not generate. */
export async function modelFactory(architectures: readonly string[]): Promise<ModelFactory> {
  const { name, head, base } = resolveArchitecture(architectures);
  if (head !== 'lm')
    throw new Error(`${name} has no LM head, so it does not generate: serve it with --runner pooling.`);
  const { createModel } = await DECODERS.get(base)!();
  return createModel;
}

/** The same for a model that is pooled. */
export async function poolingModelFactory(architectures: readonly string[]): Promise<PoolingModelFactory> {
  const { kind, base } = resolveArchitecture(architectures);
  if (kind === 'encoder') {
    const { createModel } = await ENCODERS.get(base)!();
    return createModel;
  }
  const [{ createModel }, { poolDecoder }] = await Promise.all([DECODERS.get(base)!(), import('./decoder-pooling.ts')]);
  return poolDecoder(createModel);
}
