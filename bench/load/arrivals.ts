import { type Random, randomGamma } from '../random.ts';

/**
 * When requests are sent, seconds from the start, ascending. Gaps are gamma distributed with shape `burstiness` and mean 1 / `requestRate`: 1 is a Poisson
 * process, less is burstier, more is more even. An infinite rate sends all at once.
 */
export function arrivalTimes(count: number, requestRate: number, burstiness: number, random: Random): number[] {
  if (requestRate === Number.POSITIVE_INFINITY) return new Array<number>(count).fill(0);
  let at = 0;
  return Array.from({ length: count }, (_, index) => {
    if (index > 0) at += randomGamma(random, burstiness, 1 / (requestRate * burstiness));
    return at;
  });
}

/** Lets at most so many run at once; the others wait in order. */
export class Gate {
  private readonly waiting: (() => void)[] = [];
  private free: number;

  constructor(limit: number) {
    this.free = limit;
  }

  async run<Value>(action: () => Promise<Value>): Promise<Value> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free++;
      else next();
    }
  }
}
