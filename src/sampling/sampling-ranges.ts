import type { DefaultSamplingParams } from './sampling-params.ts';

export interface SamplingRange {
  accepts(value: number): boolean;
  /** For an operator; a client is told in vLLM's words. */
  rule: string;
}

/** What a parameter may be, whether a request or the operator's defaults say it: with another default every request that leaves it out would be refused. */
export const SAMPLING_RANGES = {
  temperature: { accepts: (value) => value >= 0 && value <= 2, rule: 'a number in [0, 2]' },
  top_p: { accepts: (value) => value > 0 && value <= 1, rule: 'a number in (0, 1]' },
  top_k: atLeast(-1),
  min_p: { accepts: (value) => value >= 0 && value <= 1, rule: 'a number in [0, 1]' },
  repetition_penalty: { accepts: (value) => value > 0 && Number.isFinite(value), rule: 'a number above 0' },
  max_tokens: atLeast(1),
} as const satisfies Record<keyof DefaultSamplingParams, SamplingRange>;

function atLeast(least: number): SamplingRange {
  return {
    accepts: (value) => Number.isInteger(value) && value >= least,
    rule: `a whole number of at least ${least}`,
  };
}
