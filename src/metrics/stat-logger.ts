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
  /** When the window began. */
  estimated: Estimated;
}

/** What steps have taken on one device (`--enable-mfu-metrics`). */
interface Estimated {
  flops: number;
  bytes: number;
}

/** The periodic line of throughput, queue and cache use, one an engine (more where it speculates, or its work is estimated), as long as it has something to do and once after. */
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
      estimated: estimatedBy(null),
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
    const perSecond = (amount: number) => (elapsedSeconds > 0 ? amount / elapsedSeconds : 0);
    for (const [index, window] of this.windows.entries()) {
      const promptTokens = totals[index]!.promptTokens - window.totals.promptTokens;
      const generationTokens = totals[index]!.generationTokens - window.totals.generationTokens;
      const isRunning = window.hasNewStats && window.stats!.numRunning > 0;
      const isActive = promptTokens + generationTokens > 0 || isRunning;
      if (isActive || window.wasActive) {
        this.options.log(lineOf(index, perSecond(promptTokens), perSecond(generationTokens), window.stats));
      }
      const drafts = draftsOfWindow(window.drafts, window.stats, elapsedSeconds);
      if (drafts !== null) this.options.log(`${nameOf(index)}: ${drafts}`);
      window.drafts = window.stats;
      const estimated = estimatedBy(window.stats);
      if (estimated.flops > window.estimated.flops) {
        const [flops, bytes] = [estimated.flops - window.estimated.flops, estimated.bytes - window.estimated.bytes];
        this.options.log(estimateLineOf(index, perSecond(flops), perSecond(bytes)));
      }
      window.estimated = estimated;
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

/** In three decimals, for what a CPU does is little in these units. */
function estimateLineOf(index: number, flopRate: number, byteRate: number): string {
  return `${nameOf(index)}: MFU: ${(flopRate / 1e12).toFixed(3)} TF/s/device ${(byteRate / 1e9).toFixed(1)} GB/s/device`;
}

function estimatedBy(stats: SchedulerStats | null): Estimated {
  return stats === null
    ? { flops: 0, bytes: 0 }
    : { flops: stats.estimatedFlops, bytes: stats.estimatedReadBytes + stats.estimatedWriteBytes };
}

function nameOf(index: number): string {
  return `Engine ${String(index).padStart(3, '0')}`;
}
