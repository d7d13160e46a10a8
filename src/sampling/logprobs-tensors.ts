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
