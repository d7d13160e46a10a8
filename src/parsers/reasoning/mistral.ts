import { tagPairFormat } from './tag-pair.ts';

/** Magistral: control tokens around the thinking. */
export const mistral = tagPairFormat({
  starts: ['[THINK]'],
  ends: ['[/THINK]'],
  begins: 'marked',
  keepsSpecialTokens: true,
});
