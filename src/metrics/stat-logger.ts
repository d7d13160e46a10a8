import type { SchedulerStats } from '../engine/messages.ts';

export interface StatLoggerOptions {
  numEngines: number;
  /** Milliseconds, monotonic. */
  now: () => number;
  log: (line: string) => void;
}

interface EngineWindow {
  promptTokens: number;
  generationTokens: number;
  /** Tokens came in the window before: the line that shows the end of the activity is still due. */
  wasActive: boolean;
  /** The last ones that the core sent; it sends none while it idles. */
  stats: SchedulerStats | null;
  hasNewStats: boolean;
}

/** The periodic line of throughput, queue and cache use, one an engine, as long as it has something to do and once after. */
export class StatLogger {
  private readonly windows: EngineWindow[];
  private windowStartMs: number;

  constructor(private readonly options: StatLoggerOptions) {
    this.windows = Array.from({ length: options.numEngines }, () => ({
      promptTokens: 0,
      generationTokens: 0,
      wasActive: false,
      stats: null,
      hasNewStats: false,
    }));
    this.windowStartMs = options.now();
  }

  onStep(coreIndex: number, step: { numPromptTokens: number; numGenerationTokens: number }): void {
    const window = this.windows[coreIndex]!;
    window.promptTokens += step.numPromptTokens;
    window.generationTokens += step.numGenerationTokens;
  }

  onStats(coreIndex: number, stats: SchedulerStats): void {
    const window = this.windows[coreIndex]!;
    window.stats = stats;
    window.hasNewStats = true;
  }

  /** Ends the window: writes the lines and starts counting anew. */
  tick(): void {
    const nowMs = this.options.now();
    const elapsedSeconds = (nowMs - this.windowStartMs) / 1000;
    this.windowStartMs = nowMs;
    for (const [index, window] of this.windows.entries()) {
      const isRunning = window.hasNewStats && window.stats!.numRunning > 0;
      const isActive = window.promptTokens + window.generationTokens > 0 || isRunning;
      if (isActive || window.wasActive) this.options.log(lineOf(index, window, elapsedSeconds));
      window.wasActive = isActive;
      window.promptTokens = 0;
      window.generationTokens = 0;
      window.hasNewStats = false;
    }
  }
}

function lineOf(
  index: number,
  { promptTokens, generationTokens, stats }: EngineWindow,
  elapsedSeconds: number,
): string {
  const perSecond = (tokens: number) => (elapsedSeconds > 0 ? tokens / elapsedSeconds : 0).toFixed(1);
  const percent = (share: number) => `${(share * 100).toFixed(1)}%`;
  const hitRate = stats !== null && stats.prefixCacheQueries > 0 ? stats.prefixCacheHits / stats.prefixCacheQueries : 0;
  return [
    `Engine ${String(index).padStart(3, '0')}: Avg prompt throughput: ${perSecond(promptTokens)} tokens/s`,
    `Avg generation throughput: ${perSecond(generationTokens)} tokens/s`,
    `Running: ${stats?.numRunning ?? 0} reqs`,
    `Waiting: ${stats?.numWaiting ?? 0} reqs`,
    `KV cache usage: ${percent(stats?.kvCacheUsage ?? 0)}`,
    `Prefix cache hit rate: ${percent(hitRate)}`,
  ].join(', ');
}
