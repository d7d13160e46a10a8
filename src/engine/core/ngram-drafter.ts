import type { NgramConfig } from '../../config/speculative-config.ts';
import type { Request } from '../../scheduler/request.ts';
import type { DraftTokens } from '../../scheduler/scheduler-output.ts';

/**
 * Prompt lookup (vLLM's method ngram): the last tokens of a text, as many as stood together in it before, and what came behind them then.
 * Of several such places the latest counts, which drafts more that holds than vLLM's first one.
 */
export class NgramDrafter {
  constructor(private readonly config: NgramConfig) {}

  /** Drafts for those that generate and whose tokens are all known; none for a text that never said anything twice. */
  propose(requests: readonly Request[]): DraftTokens[] {
    const drafts: DraftTokens[] = [];
    for (const request of requests) {
      if (!canDraft(request)) continue;
      const tokens = request.tokenIds;
      const match = this.findLatest(tokens);
      if (match >= 0) drafts.push({ key: request.key, tokenIds: this.tokensBehind(tokens, match) });
    }
    return drafts;
  }

  /** Where the longest n-gram that ends the tokens ended before, the latest of its places; -1: nowhere. */
  private findLatest(tokens: Int32Array): number {
    const { promptLookupMin, promptLookupMax } = this.config;
    const end = tokens.length - 1;
    const last = tokens[end]!;
    let longest = promptLookupMin - 1;
    let match = -1;
    for (let at = end - 1; at >= longest && longest < promptLookupMax; at--) {
      // Two tokens tell nearly always that here is nothing longer.
      if (tokens[at] !== last || tokens[at - longest] !== tokens[end - longest]) continue;
      const limit = Math.min(promptLookupMax, at + 1);
      let length = 1;
      while (length < limit && tokens[at - length] === tokens[end - length]) length++;
      if (length <= longest) continue;
      longest = length;
      match = at;
    }
    return match;
  }

  /** A text that repeats itself goes on to do so: behind its end come the drafts themselves. */
  private tokensBehind(tokens: Int32Array, match: number): number[] {
    const drafts: number[] = [];
    for (let i = 0, from = match + 1; i < this.config.numSpeculativeTokens; i++, from++) {
      drafts.push(from < tokens.length ? tokens[from]! : drafts[from - tokens.length]!);
    }
    return drafts;
  }
}

/** Where a prompt is not computed yet, or a step in flight samples, the next step has no use for drafts. */
function canDraft(request: Request): boolean {
  const { status, numTokens, numComputedTokens, numOutputPlaceholders } = request;
  return status === 'running' && numOutputPlaceholders === 0 && numComputedTokens === numTokens - 1;
}
