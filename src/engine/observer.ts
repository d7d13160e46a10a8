import type { SamplingParams } from '../sampling/sampling-params.ts';
import type { FinishReason } from '../scheduler/finish-reason.ts';
import type { EngineRequest } from './engine-client.ts';
import type { SchedulerStats } from './messages.ts';

/** When things happened to one sequence, milliseconds since the epoch. */
export class SequenceTimes {
  firstScheduledMs = 0;
  firstTokenMs = 0;
  lastTokenMs = 0;
  cachedTokens = 0;

  constructor(readonly arrivalMs: number) {}

  /** No token has come yet. */
  get isFirst(): boolean {
    return this.firstTokenMs === 0;
  }

  onFirstToken(firstScheduledMs: number, nowMs: number): void {
    this.firstScheduledMs = firstScheduledMs;
    this.firstTokenMs = nowMs;
    this.lastTokenMs = nowMs;
  }

  /** Milliseconds since the token before. */
  onToken(nowMs: number): number {
    const latency = nowMs - this.lastTokenMs;
    this.lastTokenMs = nowMs;
    return latency;
  }
}

export interface FinishedSequence {
  request: EngineRequest;
  /** null: it was pooled. */
  params: SamplingParams | null;
  finishReason: FinishReason;
  times: SequenceTimes;
  finishedMs: number;
  numGenerationTokens: number;
  /** With the last of a request's sequences: most tokens of any of them; null with the others. */
  maxGenerationTokens: number | null;
  numPreemptions: number;
}

/** Hears what the engine does: metrics, the periodic log line. Calls are on the hot path. */
export interface EngineObserver {
  onStep(
    coreIndex: number,
    step: { numPromptTokens: number; numGenerationTokens: number; numStepTokens: number },
  ): void;
  onFirstToken(coreIndex: number, times: SequenceTimes): void;
  /** `count` sequences have waited so long for their next token. */
  onInterTokenLatency(coreIndex: number, latencyMs: number, count: number): void;
  onFinished(coreIndex: number, sequence: FinishedSequence): void;
  onStats(coreIndex: number, stats: SchedulerStats): void;
  /** A request was refused because of the server's load. */
  onRejected(reason: string): void;
}

export const NO_OBSERVER: EngineObserver = {
  onStep() {},
  onFirstToken() {},
  onInterTokenLatency() {},
  onFinished() {},
  onStats() {},
  onRejected() {},
};

/** Tells an observer of a step's latencies, of equal ones that follow each other at once: most sequences have had their last token in the same step. */
export class LatencyRuns {
  private latencyMs = 0;
  private count = 0;

  constructor(private readonly observer: EngineObserver) {}

  add(coreIndex: number, latencyMs: number): void {
    if (latencyMs !== this.latencyMs) this.finish(coreIndex);
    this.latencyMs = latencyMs;
    this.count++;
  }

  /** With a core's last latency of a step. */
  finish(coreIndex: number): void {
    if (this.count > 0) this.observer.onInterTokenLatency(coreIndex, this.latencyMs, this.count);
    this.count = 0;
  }
}

/** An observer with some of its methods replaced. */
export function overrideObserver(observer: EngineObserver, overrides: Partial<EngineObserver>): EngineObserver {
  return {
    onStep: (coreIndex, step) => observer.onStep(coreIndex, step),
    onFirstToken: (coreIndex, times) => observer.onFirstToken(coreIndex, times),
    onInterTokenLatency: (coreIndex, latencyMs, count) => observer.onInterTokenLatency(coreIndex, latencyMs, count),
    onFinished: (coreIndex, sequence) => observer.onFinished(coreIndex, sequence),
    onStats: (coreIndex, stats) => observer.onStats(coreIndex, stats),
    onRejected: (reason) => observer.onRejected(reason),
    ...overrides,
  };
}
