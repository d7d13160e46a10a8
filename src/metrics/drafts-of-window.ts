import type { DraftCounts } from '../scheduler/draft-counter.ts';

/**
 * vLLM's line on the drafts of a window; null where there were none.
 *
 * @param before null: there were none before the window
 */
export function draftsOfWindow(
  before: DraftCounts | null,
  after: DraftCounts | null,
  elapsedSeconds: number,
): string | null {
  const numDrafts = (after?.numDrafts ?? 0) - (before?.numDrafts ?? 0);
  if (after === null || numDrafts === 0) return null;
  const drafted = after.numDraftTokens - (before?.numDraftTokens ?? 0);
  const accepted = after.numAcceptedTokens - (before?.numAcceptedTokens ?? 0);
  const rates = after.acceptedPerPosition.map(
    (count, i) => (count - (before?.acceptedPerPosition[i] ?? 0)) / numDrafts,
  );
  const perSecond = (tokens: number) => (elapsedSeconds > 0 ? tokens / elapsedSeconds : 0).toFixed(2);
  return [
    // With the token that the model itself adds.
    `SpecDecoding metrics: Mean acceptance length: ${(1 + accepted / numDrafts).toFixed(2)}`,
    `Accepted throughput: ${perSecond(accepted)} tokens/s`,
    `Drafted throughput: ${perSecond(drafted)} tokens/s`,
    `Accepted: ${accepted} tokens`,
    `Drafted: ${drafted} tokens`,
    `Per-position acceptance rate: ${rates.map((rate) => rate.toFixed(3)).join(', ')}`,
    `Avg Draft acceptance rate: ${((100 * accepted) / drafted).toFixed(1)}%`,
  ].join(', ');
}
