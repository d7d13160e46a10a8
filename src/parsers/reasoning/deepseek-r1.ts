import { tagPairFormat } from './tag-pair.ts';

/** DeepSeek-R1: always thinks first, and often without the start tag. */
export const deepseekR1 = tagPairFormat({ starts: ['<think>'], ends: ['</think>'], begins: 'always' });
