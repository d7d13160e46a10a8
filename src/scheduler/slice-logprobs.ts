import type { LogprobsTensors } from '../engine/messages.ts';

/** Positions [start, end) of `logprobs`; null where there are none. The same object when that is all of them. */
export function sliceLogprobs(logprobs: LogprobsTensors | null, start: number, end: number): LogprobsTensors | null {
  if (logprobs === null || end <= start) return null;
  const { numPositions, width } = logprobs;
  if (start === 0 && end === numPositions) return logprobs;
  return {
    numPositions: end - start,
    width,
    tokenIds: logprobs.tokenIds.slice(start * width, end * width),
    logprobs: logprobs.logprobs.slice(start * width, end * width),
    ranks: logprobs.ranks.slice(start, end),
  };
}
