import { tagPairFormat } from './tag-pair.ts';

/** Granite 3.2: two sentences announce thoughts and answer. An answer without the first is content. */
export const granite = tagPairFormat({
  starts: ['Here is my thought process:', "Here's my thought process:"],
  ends: ['Here is my response:', "Here's my response:"],
  begins: 'marked',
});
