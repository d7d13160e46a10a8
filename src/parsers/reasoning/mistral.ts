import { tagPairFormat } from './tag-pair.ts';

/** Magistral: control tokens around the thinking. */
export const mistral = tagPairFormat({
  start: '[THINK]',
  end: '[/THINK]',
  begins: 'marked',
  keepsSpecialTokens: true,
});
