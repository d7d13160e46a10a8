import type { PeerBatch, SequenceArrivals } from './peer.ts';

/** Tokens a second of one batch. */
export interface BatchRates {
  /** Of the prompts, until every sequence has its first token. */
  prefill: number;
  /** Of the output after that: only what comes when all sequences run counts. 0 where nothing does. */
  decode: number;
  /** Of the output over the whole time. */
  output: number;
}

export function batchRates(batch: PeerBatch, arrivals: readonly SequenceArrivals[]): BatchRates {
  const begun = Math.max(...arrivals.map(({ times }) => times[0]!));
  const ended = Math.max(...arrivals.map(({ times }) => times.at(-1)!));
  const tokensAfter = (from: number) =>
    arrivals.reduce((sum, { times, numTokens }) => {
      const pieces = times.filter((time) => time > from).length;
      return sum + (pieces * numTokens) / times.length;
    }, 0);
  return {
    prefill: (batch.batchSize * batch.inputLen) / begun,
    decode: ended > begun ? tokensAfter(begun) / (ended - begun) : 0,
    output: tokensAfter(0) / ended,
  };
}
