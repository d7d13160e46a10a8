import { createLlamaLike } from './llama.ts';
import type { ModelFactory } from './model-context.ts';

/** Mistral 7B and later dense ones: Llama with a sliding window (read from the config) and never a bias. */
export const createModel: ModelFactory = (context) => createLlamaLike(context, { qkvBias: false, outBias: false });
