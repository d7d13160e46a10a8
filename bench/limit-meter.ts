/** The most that the machine gives, in GB/s (10^9) and GFLOP/s. */
export interface Limits {
  read_gbps: number;
  gflops: number;
}

/** Measures limits whenever asked. */
export interface LimitMeter {
  /** The best of several rounds: what else runs on the machine only takes away. About half a second. */
  measure(): Limits;
  close(): void;
}
