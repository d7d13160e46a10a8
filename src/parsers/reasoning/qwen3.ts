import { tagPairFormat } from './tag-pair.ts';

/**
 * Qwen3: thinks unless the template was told not to, with or without the start tag; an answer without the end tag is all reasoning. A tool call
 * ends the thinking too.
 */
export const qwen3 = tagPairFormat({
  starts: ['<think>'],
  ends: ['</think>'],
  alsoEnd: ['<tool_call>'],
  begins: 'always',
  dropsStrayTags: true,
  isOff: (kwargs) => kwargs.enable_thinking === false,
});
