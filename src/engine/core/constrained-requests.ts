import { logger } from '../../logging/logger.ts';
import type { RequestFailure } from '../../scheduler/finish-reason.ts';
import type { Request } from '../../scheduler/request.ts';
import type { RequestUpdate, SchedulerInterface } from '../../scheduler/scheduler-interface.ts';
import type { GrammarBitmask, SchedulerOutput } from '../../scheduler/scheduler-output.ts';
import type { StructuredOutputManager } from '../../structured-output/structured-output-manager.ts';

const log = logger('core');

const NOBODY: ReadonlySet<number> = new Set();

const DEAD_END: RequestFailure = {
  fault: 'client',
  message:
    'The output can not be continued: the other parameters allow no token that the grammar allows, or the grammar is too complex.',
};

/** Requests with a grammar, between the core's scheduler and their grammars. */
export class ConstrainedRequests {
  /**
   * @param manager null: requests with a grammar end with an error
   * @param fail tells a request's client that it has ended, and why; the scheduler does not have it
   */
  constructor(
    private readonly scheduler: SchedulerInterface,
    private readonly manager: StructuredOutputManager | null,
    private readonly fail: (requests: readonly Request[], failure: RequestFailure) => void,
  ) {}

  /** Those that wait for their grammars. */
  get numWaiting(): number {
    return this.manager?.numWaiting ?? 0;
  }

  waitingRequests(): Request[] {
    return this.manager?.waitingRequests() ?? [];
  }

  /** Takes one in, which comes to the scheduler when its grammar is there. */
  add(request: Request): void {
    try {
      if (this.manager === null) throw new Error('the core has no grammar engine');
      this.manager.add(request);
    } catch (error) {
      this.refuse(request, error instanceof Error ? error.message : String(error));
    }
  }

  /** Those whose grammars have been compiled join the others. */
  admit(): void {
    if (this.manager === null || this.numWaiting === 0) return;
    const { ready, failed } = this.manager.admit();
    for (const request of ready) this.scheduler.addRequest(request);
    for (const { request, reason } of failed) this.refuse(request, reason);
  }

  /** Ends those that have no mask. @returns those whose mask is not ready: they must not sample in the next step */
  settle(): ReadonlySet<number> {
    if (this.manager === null) return NOBODY;
    const { numRunning, numWaiting } = this.scheduler;
    const { held, deadEnds } = this.manager.settle(numRunning + numWaiting + this.numWaiting === 1);
    if (deadEnds.length === 0) return held;
    this.scheduler.finishRequests(
      deadEnds.map(({ key }) => key),
      'error',
    );
    this.fail(deadEnds, DEAD_END);
    return held;
  }

  bitmask(scheduled: SchedulerOutput): GrammarBitmask | null {
    return this.manager?.bitmask(scheduled) ?? null;
  }

  /** A text that is complete by its grammar ends with EOS, even where other rules of its request (ignore_eos, min_tokens) are against it. */
  follow(update: RequestUpdate): void {
    const { request } = update;
    if (request.samplingParams.structuredOutputs === null) return;
    if (update.finishReason !== null || update.newTokenIds.length === 0) return;
    if (this.manager?.advance(update) !== 'ended') return;
    update.finishReason = 'stop';
    update.newTokenIds = [request.eosTokenIds[0]!];
    this.scheduler.finishRequests([request.key], update.finishReason);
  }

  release(key: number): void {
    this.manager?.release(key);
  }

  close(): void {
    this.manager?.close();
  }

  /** Ends one that never came to run. */
  private refuse(request: Request, reason: string): void {
    log.warn(`Request ${request.requestId} can't be constrained: ${reason}`);
    this.fail([request], { fault: 'client', message: `The output can not be constrained: ${reason}` });
  }
}
