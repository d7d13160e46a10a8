import type { ModelWork, Work } from '../../layers/model-work.ts';
import type { SchedulerOutput } from '../../scheduler/scheduler-output.ts';

/** Estimates what the steps so far have taken (`--enable-mfu-metrics`). */
export class StepWork {
  readonly totals: Work = { flops: 0, readBytes: 0, writeBytes: 0 };

  constructor(private readonly model: ModelWork) {}

  /** Of each sequence the last token has logits, and so have drafts. */
  add({ newRequests, cachedRequests }: SchedulerOutput): void {
    const step = this.model.newStep();
    for (const { numComputedTokens, numScheduledTokens } of newRequests) {
      step.addSequence(numScheduledTokens, numComputedTokens + numScheduledTokens, 1);
    }
    for (const { numComputedTokens, numScheduledTokens, specTokenIds } of cachedRequests) {
      step.addSequence(numScheduledTokens, numComputedTokens + numScheduledTokens, 1 + specTokenIds.length);
    }
    const { flops, readBytes, writeBytes } = this.model.estimate(step);
    this.totals.flops += flops;
    this.totals.readBytes += readBytes;
    this.totals.writeBytes += writeBytes;
  }
}
