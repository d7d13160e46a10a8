import type { CompletionOutput } from '../../engine/engine-client.ts';

/**
 * Collects the deltas of one choice until there are `interval` new tokens; the first one and the last one go through at once.
 * The caller passes every delta and sends what it gets back.
 */
export class StreamInterval {
  #waiting: CompletionOutput | null = null;
  #isFirst = true;

  constructor(private readonly interval: number) {}

  push(delta: CompletionOutput): CompletionOutput | null {
    const merged = this.#waiting === null ? delta : merge(this.#waiting, delta);
    const isDue = this.#isFirst || merged.finishReason !== null || merged.tokenIds.length >= this.interval;
    this.#waiting = isDue ? null : merged;
    if (!isDue) return null;
    this.#isFirst = false;
    return merged;
  }
}

function merge(first: CompletionOutput, second: CompletionOutput): CompletionOutput {
  return {
    ...second,
    text: first.text + second.text,
    tokenIds: first.tokenIds.concat(second.tokenIds),
    logprobs: first.logprobs === null ? second.logprobs : first.logprobs.concat(second.logprobs ?? []),
  };
}
