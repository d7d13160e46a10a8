/** Log probabilities of `numPositions` tokens: entry 0 of a position is the token itself, then the best ones. */
export interface LogprobsTensors {
  numPositions: number;
  /** top_n + 1 */
  width: number;
  /** [numPositions, width] */
  tokenIds: Int32Array;
  /** nats, [numPositions, width] */
  logprobs: Float32Array;
  /** 1-based rank of entry 0, [numPositions] */
  ranks: Int32Array;
}

/** Pieces of one width one behind the other; null where there are none, the same object where it is one. */
export function joinLogprobs(pieces: readonly (LogprobsTensors | null)[]): LogprobsTensors | null {
  const [first, ...others] = pieces.filter((piece) => piece !== null);
  if (first === undefined || others.length === 0) return first ?? null;
  const all = [first, ...others];
  return {
    numPositions: all.reduce((sum, { numPositions }) => sum + numPositions, 0),
    width: first.width,
    tokenIds: Int32Array.from(all.flatMap(({ tokenIds }) => [...tokenIds])),
    logprobs: Float32Array.from(all.flatMap(({ logprobs }) => [...logprobs])),
    ranks: Int32Array.from(all.flatMap(({ ranks }) => [...ranks])),
  };
}
