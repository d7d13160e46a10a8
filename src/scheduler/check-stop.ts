import type { FinishReason } from './finish-reason.ts';
import type { Request } from './request.ts';

export interface Stop {
  finishReason: FinishReason;
  /** The stop token id, null for EOS and for a length limit. */
  stopReason: number | null;
}

/** Whether the request ends with the token appended last. Stop strings are the client's to find: the core knows no text. */
export function checkStop(request: Request, maxModelLen: number): Stop | null {
  const { samplingParams: params } = request;
  const { numOutputTokens, numTokens } = request;
  if (numOutputTokens >= params.minTokens) {
    const last = request.lastTokenId;
    if (!params.ignoreEos && request.eosTokenIds.includes(last)) return { finishReason: 'stop', stopReason: null };
    if (params.stopTokenIds.includes(last)) return { finishReason: 'stop', stopReason: last };
  }
  if (numOutputTokens >= params.maxTokens || numTokens >= maxModelLen)
    return { finishReason: 'length', stopReason: null };
  if (request.repetition?.isDetected && numOutputTokens >= params.minTokens)
    return { finishReason: 'repetition', stopReason: null };
  return null;
}
