import { createLlamaLike } from './llama.ts';
import type { ModelFactory } from './model-context.ts';

/** Qwen 1.5, 2 and 2.5: Llama whose q, k and v have biases, whatever the config says, and whose output projection has none. */
export const createModel: ModelFactory = (context) => createLlamaLike(context, { qkvBias: true, outBias: false });
