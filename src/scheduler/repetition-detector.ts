import type { RepetitionDetectionParams } from '../sampling/sampling-params.ts';

/**
 * Whether an output ends with a pattern of some size that comes `minCount` times in a row. For each size it keeps the number of last tokens that are equal
 * to the one a pattern before them, so a token costs one comparison a size, whatever the output.
 */
export class RepetitionDetector {
  private readonly matches: Int32Array;
  private detected = false;

  constructor(private readonly params: RepetitionDetectionParams) {
    this.matches = new Int32Array(params.maxPatternSize + 1);
  }

  /** Of the output as it was at the last `push`. */
  get isDetected(): boolean {
    return this.detected;
  }

  /** @param output with one token more than at the last call */
  push(output: Int32Array): void {
    const { minPatternSize, maxPatternSize, minCount } = this.params;
    const last = output.length - 1;
    const token = output[last]!;
    this.detected = false;
    for (let size = minPatternSize; size <= maxPatternSize && size <= last; size++) {
      const matches = output[last - size] === token ? this.matches[size]! + 1 : 0;
      this.matches[size] = matches;
      if (matches >= size * (minCount - 1)) this.detected = true;
    }
  }
}
