import { createLlamaLike } from './llama.ts';
import type { ModelFactory } from './model-context.ts';

/** SmolLM3: Llama in which some layers have no rotary embedding (the config's `no_rope_layers`). */
export const createModel: ModelFactory = (context) => createLlamaLike(context);
