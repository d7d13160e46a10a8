import { setImmediate } from 'node:timers/promises';
import { createDetokenizer } from './detokenizer.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Ids that are decoded at a time, some 20 ms where a token's text depends on its neighbours. */
const SLICE = 8192;

/** `Tokenizer.decode` with special tokens; of a long list in slices, between which the thread does what else there is. */
export async function decodeInSlices(tokenizer: Tokenizer, ids: readonly number[]): Promise<string> {
  if (ids.length <= SLICE) return tokenizer.decode(ids, { skipSpecialTokens: false });
  const detokenizer = createDetokenizer(tokenizer, { skipSpecialTokens: false, spacesBetweenSpecialTokens: true });
  const pieces: string[] = [];
  for (let start = 0; start < ids.length; start += SLICE) {
    pieces.push(detokenizer.push(ids.slice(start, start + SLICE)));
    await setImmediate();
  }
  return pieces.join('') + detokenizer.finish();
}
