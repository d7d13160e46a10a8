import { tagPairFormat } from './tag-pair.ts';

/** Magistral: control tokens around the thinking, which may begin behind some text; a call ends it too. */
export const mistral = tagPairFormat({
  starts: ['[THINK]'],
  ends: ['[/THINK]'],
  alsoEnd: ['[TOOL_CALLS]'],
  begins: 'anywhere',
  dropsStrayTags: true,
  keepsSpecialTokens: true,
});
