import type { EngineClient } from '../../engine/engine-client.ts';

/** How long a pooled text may be, and how it is cut to fit. */
export interface TextLimits {
  maxModelLen: number;
  /** Tokens to keep, special tokens included; null: a text that is too long is refused. */
  keep: number | null;
  /** From which side tokens are cut off. */
  side: 'left' | 'right';
}

/** At most `keep` of the ids. */
export function cutIds(ids: Int32Array, { keep, side }: TextLimits): Int32Array {
  if (keep === null || ids.length <= keep) return ids;
  return side === 'left' ? ids.subarray(ids.length - keep) : ids.subarray(0, keep);
}

/** The ids of a text. Where it is cut, its special tokens stay: the text between them is what gets shorter. */
export async function encodeText(
  engine: EngineClient,
  text: string,
  addSpecialTokens: boolean,
  limits: TextLimits,
): Promise<Int32Array> {
  const ids = await engine.encode(text, { addSpecialTokens });
  const { keep } = limits;
  if (keep === null || ids.length <= keep || !addSpecialTokens) return cutIds(ids, limits);
  const plain = await engine.encode(text, { addSpecialTokens: false });
  const before = findInside(ids, plain);
  const numSpecial = ids.length - plain.length;
  if (before === null || numSpecial > keep) return cutIds(ids, limits);
  const cut = cutIds(plain, { ...limits, keep: keep - numSpecial });
  return Int32Array.of(...ids.subarray(0, before), ...cut, ...ids.subarray(before + plain.length));
}

/** The beginning of a text that is at most `most` tokens; 0: all of it. */
export async function cutText(engine: EngineClient, text: string, most: number): Promise<string> {
  const fits = async (part: string) => (await engine.encode(part, { addSpecialTokens: false })).length <= most;
  if (most === 0 || (await fits(text))) return text;
  let [low, high] = [0, text.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (await fits(text.slice(0, middle))) low = middle;
    else high = middle - 1;
  }
  const part = text.slice(0, low);
  return part.isWellFormed() ? part : part.slice(0, -1);
}

/** Where `part` lies in `whole`, which has a few tokens more at its ends; null: it doesn't. */
function findInside(whole: Int32Array, part: Int32Array): number | null {
  for (let start = 0; start + part.length <= whole.length; start++) {
    if (part.every((id, i) => whole[start + i] === id)) return start;
  }
  return null;
}

/**
 * Lengths of two texts that are cut to `room` tokens together: the longer one is cut first, down to the other; from there on both alike. As
 * tokenizers does it for `longest_first`.
 */
export function pairLengths(length1: number, length2: number, room: number): [number, number] {
  if (length1 + length2 <= room) return [length1, length2];
  const [shorter, swapped] = length1 <= length2 ? [length1, false] : [length2, true];
  let first = shorter;
  let second = shorter > room ? shorter : Math.max(shorter, room - shorter);
  if (first + second > room) {
    first = Math.floor(room / 2);
    second = first + (room % 2);
  }
  return swapped ? [second, first] : [first, second];
}
