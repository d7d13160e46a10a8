import { NORM_OFFSET } from './gemma.ts';
import { createGemma } from './gemma2.ts';
import type { ModelFactory } from './model-context.ts';

/** Gemma 3, text: sliding and full layers with a rotary embedding of their own each, norms of q and k. */
export const createModel: ModelFactory = (context) => {
  const { config } = context;
  for (const cap of ['attn_logit_softcapping', 'final_logit_softcapping']) {
    if (config.raw[cap] != null)
      throw new Error(`${cap} is ${String(config.raw[cap])}; Gemma 3 models are served without.`);
  }
  return createGemma(context, { qkNorm: { eps: config.rmsNormEps, offset: NORM_OFFSET } });
};
