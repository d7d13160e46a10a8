import type { Request } from './request.ts';
import type { SchedulerOutput } from './scheduler-output.ts';

/** What a request lets a step do, from its own parameters and tokens: grammar, logits processors, thinking budget, drafts, limits. */

/**
 * How far a running request is behind; 0 while only an update can tell how it goes on.
 *
 * @param isHeld it must not sample: its last token is not computed yet
 */
export function numTokensToCompute(request: Request, maxModelLen: number, isHeld: boolean): number {
  const { numTokens, numOutputTokens, numOutputPlaceholders } = request;
  const { maxTokens, structuredOutputs, logitsProcessors } = request.samplingParams;
  const numFreeTokens = request.thinkingBudget?.numFreeTokens ?? Number.POSITIVE_INFINITY;
  if (isHeld) return Math.max(0, numTokens - 1 - request.numComputedTokens);
  if (numOutputPlaceholders > 0) {
    // What a grammar allows next, or a logits processor makes of it, follows from the token in flight.
    if (structuredOutputs !== null || logitsProcessors.length > 0) return 0;
    // The token in flight may be the last that is free, or may end the thinking.
    if (numOutputPlaceholders >= numFreeTokens) return 0;
    const isLastInFlight =
      numOutputTokens + numOutputPlaceholders >= maxTokens || numTokens + numOutputPlaceholders >= maxModelLen;
    if (isLastInFlight || request.numSpecTokensInFlight > 0) return 0;
  }
  // Of d drafts up to d + 1 tokens come.
  const numDrafts = Math.min(
    request.specTokenIds.length,
    maxTokens - numOutputTokens - 1,
    maxModelLen - numTokens - 1,
    // A processor knows no more than the output, and a grammar's mask is of the token behind it.
    logitsProcessors.length > 0 || structuredOutputs !== null ? 0 : numFreeTokens - 1,
  );
  return numTokens + numOutputPlaceholders + Math.max(0, numDrafts) - request.numComputedTokens;
}

/** What the step has to know of a request, of which `numNewTokens` have been scheduled. */
export function noteScheduled(step: SchedulerOutput, request: Request, numNewTokens: number): void {
  step.totalNumScheduledTokens += numNewTokens;
  const { key, samplingParams, numOutputPlaceholders, thinkingBudget } = request;
  if (numOutputPlaceholders === 0) return;
  if (samplingParams.logitsProcessors.length > 0) step.waitsForLogits = true;
  const tokenId = thinkingBudget?.forcedTokenId ?? null;
  if (tokenId !== null) step.forcedTokens.push({ key, tokenId });
}
