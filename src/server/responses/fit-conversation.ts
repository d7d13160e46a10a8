import type { ConversationItem } from '../protocol/responses-input.ts';

/**
 * `truncation: "auto"`: the conversation without as many of its oldest items as it takes to fit. System and developer messages stay, the last item
 * too, and no result of a call is left without the call.
 *
 * @param fits whether a conversation is short enough; asked a logarithmic number of times
 */
export async function fitConversation(
  items: readonly ConversationItem[],
  fits: (items: readonly ConversationItem[]) => Promise<boolean>,
): Promise<readonly ConversationItem[]> {
  if (await fits(items)) return items;
  const cuts = cutsOf(items);
  let low = 0;
  let high = cuts.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (await fits(from(items, cuts[middle]!))) high = middle;
    else low = middle + 1;
  }
  return cuts.length === 0 ? items : from(items, cuts[low]!);
}

/** Where a shorter conversation may begin. */
function cutsOf(items: readonly ConversationItem[]): number[] {
  return items.flatMap((item, i) => (i > 0 && item.type !== 'function_call_output' && !isLasting(item) ? [i] : []));
}

function from(items: readonly ConversationItem[], cut: number): ConversationItem[] {
  return items.filter((item, i) => i >= cut || isLasting(item));
}

function isLasting(item: ConversationItem): boolean {
  return item.type === 'message' && (item.role === 'system' || item.role === 'developer');
}
