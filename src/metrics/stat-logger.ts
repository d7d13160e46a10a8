import type { SchedulerStats } from '../engine/messages.ts';
import type { DraftCounts } from '../scheduler/draft-counter.ts';
import { draftsOfWindow } from './drafts-of-window.ts';

/** Of an engine since the start. */
export interface TokenTotals {
  promptTokens: number;
  generationTokens: number;
}

export interface StatLoggerOptions {
  numEngines: number;
  /** Milliseconds, monotonic. */
  now: () => number;
  log: (line: string) => void;
  /** By engine, over all front ends. */
  tokenTotals: () => Promise<readonly TokenTotals[]>;
}

interface EngineWindow {
  /** When the window began. */
  totals: TokenTotals;
  /** Tokens came in the window before: the line that shows the end of the activity is still due. */
  wasActive: boolean;
  /** The last ones that the core sent; it sends none while it idles. */
  stats: SchedulerStats | null;
  hasNewStats: boolean;
  /** When the window began; null before there were any. */
  drafts: DraftCounts | null;
}

/** The periodic line of throughput, queue and cache use, one an engine (and one of its drafts, if there were any), as long as it has something to do and once after. */
export class StatLogger {
  private readonly windows: EngineWindow[];
  private windowStartMs: number;

  constructor(private readonly options: StatLoggerOptions) {
    this.windows = Array.from({ length: options.numEngines }, () => ({
      totals: { promptTokens: 0, generationTokens: 0 },
      wasActive: false,
      stats: null,
      hasNewStats: false,
      drafts: null,
    }));
    this.windowStartMs = options.now();
  }

  onStats(coreIndex: number, stats: SchedulerStats): void {
    const window = this.windows[coreIndex]!;
    window.stats = stats;
    window.hasNewStats = true;
  }

  /** Ends the window: writes the lines and starts counting anew. */
  async tick(): Promise<void> {
    const totals = await this.options.tokenTotals();
    const nowMs = this.options.now();
    const elapsedSeconds = (nowMs - this.windowStartMs) / 1000;
    this.windowStartMs = nowMs;
    for (const [index, window] of this.windows.entries()) {
      const promptTokens = totals[index]!.promptTokens - window.totals.promptTokens;
      const generationTokens = totals[index]!.generationTokens - window.totals.generationTokens;
      const isRunning = window.hasNewStats && window.stats!.numRunning > 0;
      const isActive = promptTokens + generationTokens > 0 || isRunning;
      if (isActive || window.wasActive) {
        const perSecond = (tokens: number) => (elapsedSeconds > 0 ? tokens / elapsedSeconds : 0);
        this.options.log(lineOf(index, perSecond(promptTokens), perSecond(generationTokens), window.stats));
      }
      const drafts = draftsOfWindow(window.drafts, window.stats, elapsedSeconds);
      if (drafts !== null) this.options.log(`${nameOf(index)}: ${drafts}`);
      window.drafts = window.stats;
      window.totals = totals[index]!;
      window.wasActive = isActive;
      window.hasNewStats = false;
    }
  }
}

/** @param promptRate tokens a second, as `generationRate` */
function lineOf(index: number, promptRate: number, generationRate: number, stats: SchedulerStats | null): string {
  const percent = (share: number) => `${(share * 100).toFixed(1)}%`;
  const hitRate = stats !== null && stats.prefixCacheQueries > 0 ? stats.prefixCacheHits / stats.prefixCacheQueries : 0;
  return [
    `${nameOf(index)}: Avg prompt throughput: ${promptRate.toFixed(1)} tokens/s`,
    `Avg generation throughput: ${generationRate.toFixed(1)} tokens/s`,
    `Running: ${stats?.numRunning ?? 0} reqs`,
    `Waiting: ${stats?.numWaiting ?? 0} reqs`,
    `KV cache usage: ${percent(stats?.kvCacheUsage ?? 0)}`,
    `Prefix cache hit rate: ${percent(hitRate)}`,
  ].join(', ');
}

function nameOf(index: number): string {
  return `Engine ${String(index).padStart(3, '0')}`;
}
