/** The most that the machine gives, in GB/s (10^9) and GFLOP/s. */
export interface Limits {
  read_gbps: number;
  /** Of what the kernels multiply with. */
  gflops: number;
  /** Of bfloat16 dot products, where the processor has them and float32 is faster. */
  bf16_dot_gflops?: number;
}

/** Measures limits whenever asked. */
export interface LimitMeter {
  /** The device in words, as the engine has it: "CPU, 2 threads, AVX-512". */
  readonly device: string;
  /** The best of several rounds: what else runs on the machine only takes away. About half a second. */
  measure(): Limits;
  close(): void;
}
