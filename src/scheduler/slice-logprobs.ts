import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { Request } from './request.ts';

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

/**
 * What the client does not have yet of prompt log probabilities from a step that began behind `numComputedBefore` tokens: position `i` of the piece is
 * prompt position `numComputedBefore + 1 + i`. After a preemption positions are computed again, but not sent again.
 */
export function takePromptLogprobs(
  request: Request,
  numComputedBefore: number,
  piece: LogprobsTensors | null,
): LogprobsTensors | null {
  if (piece === null) return null;
  const start = Math.max(0, request.numPromptLogprobsSent - numComputedBefore);
  if (start >= piece.numPositions) return null;
  request.numPromptLogprobsSent = numComputedBefore + piece.numPositions;
  return sliceLogprobs(piece, start, piece.numPositions);
}
