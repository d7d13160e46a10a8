import { createLlamaLike } from './llama.ts';
import type { ModelFactory } from './model-context.ts';

/** Qwen 3: Llama with a norm over each query and key head before the rotation. */
export const createModel: ModelFactory = (context) =>
  createLlamaLike(context, { qkNorm: { eps: context.config.rmsNormEps } });
