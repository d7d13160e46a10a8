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

/** Pieces of one width, at least one, one behind the other. */
export function joinLogprobs(pieces: readonly LogprobsTensors[]): LogprobsTensors {
  const { width } = pieces[0]!;
  const numPositions = pieces.reduce((sum, piece) => sum + piece.numPositions, 0);
  const tokenIds = new Int32Array(numPositions * width);
  const logprobs = new Float32Array(numPositions * width);
  const ranks = new Int32Array(numPositions);
  let position = 0;
  for (const piece of pieces) {
    tokenIds.set(piece.tokenIds, position * width);
    logprobs.set(piece.logprobs, position * width);
    ranks.set(piece.ranks, position);
    position += piece.numPositions;
  }
  return { numPositions, width, tokenIds, logprobs, ranks };
}
