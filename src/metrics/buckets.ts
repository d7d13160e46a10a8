/** Histogram bounds, the same as vLLM's, so that its dashboards and alerts work. */

/** 1, 2, 5, 10, … up to and including `max`: for token counts, by the longest request there can be. */
export function oneTwoFiveBuckets(max: number): number[] {
  const buckets: number[] = [];
  for (let power = 1; ; power *= 10) {
    for (const mantissa of [1, 2, 5]) {
      if (mantissa * power > max) return buckets;
      buckets.push(mantissa * power);
    }
  }
}

export const ITERATION_TOKENS_BUCKETS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

export const PARAMS_N_BUCKETS = [1, 2, 5, 10, 20];

export const PREEMPTIONS_BUCKETS = [1, 2, 3, 4, 5, 10, 20];

export const TIME_TO_FIRST_TOKEN_BUCKETS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];

/** Between two tokens, and per token on average. */
export const TOKEN_LATENCY_BUCKETS = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];

/** Of a whole request and of its phases. */
export const REQUEST_LATENCY_BUCKETS = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];

export const HTTP_DURATION_BUCKETS = [0.1, 0.5, 1];

/** For one histogram over all routes, fine enough for quantiles. */
export const HTTP_DURATION_HIGHR_BUCKETS = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
];
