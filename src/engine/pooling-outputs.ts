import type { FinishReason } from '../scheduler/finish-reason.ts';
import { wallClockMs } from './clock.ts';
import { type PoolingRequest, type PoolingSink, RequestEndedError } from './engine-client.ts';
import type { EngineCoreOutput, EngineCoreRequest } from './messages.ts';
import { type EngineObserver, SequenceTimes } from './observer.ts';

interface PendingPooling {
  readonly request: PoolingRequest;
  readonly coreIndex: number;
  readonly handle: number;
  readonly sink: PoolingSink;
  readonly times: SequenceTimes;
}

/** Requests that are pooled, from their admission to their one output. */
export class PoolingOutputs {
  private readonly byHandle = new Map<number, PendingPooling>();
  private readonly byId = new Map<string, PendingPooling>();

  /** Prompt tokens of the requests that are open. */
  numQueuedTokens = 0;

  constructor(private readonly observer: EngineObserver) {}

  get size(): number {
    return this.byId.size;
  }

  has(requestId: string): boolean {
    return this.byId.has(requestId);
  }

  add(request: PoolingRequest, coreIndex: number, coreRequest: EngineCoreRequest, sink: PoolingSink): void {
    const { handle, arrivalTimeMs } = coreRequest;
    const pending = { request, coreIndex, handle, sink, times: new SequenceTimes(arrivalTimeMs) };
    this.byHandle.set(handle, pending);
    this.byId.set(request.requestId, pending);
    this.numQueuedTokens += request.promptTokenIds.length;
  }

  /** Forgets a request; gives its handle and core, null for an unknown id. */
  remove(requestId: string): { coreIndex: number; handle: number } | null {
    const pending = this.byId.get(requestId);
    if (pending === undefined) return null;
    this.finish(pending, 'abort', 0, wallClockMs());
    return pending;
  }

  /** Every open request gets the error, and is forgotten. */
  failAll(error: Error): void {
    const open = [...this.byId.values()];
    this.byHandle.clear();
    this.byId.clear();
    this.numQueuedTokens = 0;
    for (const { sink } of open) sink.onError(error);
  }

  /** @returns the prompt tokens that are done with; 0 where the output belongs to no request here */
  process(output: EngineCoreOutput, nowMs: number): number {
    const pending = this.byHandle.get(output.handle);
    if (pending === undefined) return 0;
    const { request, times, sink, coreIndex } = pending;
    const { poolerOutput, finishReason, numCachedTokens } = output;
    if (poolerOutput === null) {
      const reason = finishReason ?? 'error';
      this.finish(pending, reason, output.numPreemptions, nowMs);
      sink.onError(new RequestEndedError(request.requestId, reason, output.failure));
      return 0;
    }
    times.cachedTokens = numCachedTokens;
    times.onFirstToken(output.firstScheduledMs, nowMs);
    this.observer.onFirstToken(coreIndex, times);
    this.finish(pending, 'stop', output.numPreemptions, nowMs);
    const { requestId, promptTokenIds } = request;
    sink.onOutput({ requestId, promptTokenIds, output: poolerOutput, numCachedTokens });
    return promptTokenIds.length;
  }

  private finish(
    pending: PendingPooling,
    finishReason: FinishReason,
    numPreemptions: number,
    finishedMs: number,
  ): void {
    const { request, handle, coreIndex, times } = pending;
    this.byHandle.delete(handle);
    this.byId.delete(request.requestId);
    this.numQueuedTokens -= request.promptTokenIds.length;
    const counts = { numGenerationTokens: 0, maxGenerationTokens: 0, numPreemptions };
    this.observer.onFinished(coreIndex, { request, params: null, finishReason, times, finishedMs, ...counts });
  }
}
