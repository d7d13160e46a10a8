import { UsageError } from '../../src/config/config-error.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { type EngineFacts, engineFacts } from '../engine-facts.ts';
import type { LimitMeter } from '../limit-meter.ts';
import { limitsAround, openLimitMeter } from '../limits.ts';
import { type Random, seededRandom } from '../random.ts';
import type { BatchTurn } from './batch-figures.ts';
import { type ModelCost, modelCost } from './model-cost.ts';
import { type BatchShape, type BatchTimes, runBatch } from './run-batch.ts';

/** Until the statistics of a core that has become idle have surely come. */
const STATS_DELAY_MS = 50;

/** An engine of its own that gets batches of random prompts, and a meter of what its device gives at most. */
export class BatchBench {
  private readonly random: Random;

  private constructor(
    private readonly engine: OfflineEngine,
    private readonly meter: LimitMeter,
    readonly cost: ModelCost,
  ) {
    this.random = seededRandom(engine.config.model.seed);
  }

  /**
   * @param given the engine's flags; no prefix cache by default, which could only cost
   * @param largestBatch prompts that must fit into one step
   * @throws UsageError where they don't, and what OfflineEngine.start does
   */
  static async start(given: Partial<FlagValues>, largestBatch: number): Promise<BatchBench> {
    const engineArgs = new EngineArgs({ enablePrefixCaching: false, ...given });
    await checkFits(engineArgs, largestBatch);
    const engine = await OfflineEngine.start(engineArgs);
    try {
      const { config } = engine;
      const cost = await modelCost(config);
      return new BatchBench(engine, await openLimitMeter({ ...config.device, dtype: config.model.dtype }), cost);
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  get facts(): EngineFacts & { device: string } {
    return { ...engineFacts(this.engine.config), device: this.meter.device };
  }

  /** So many batches, one after another. */
  async run(shape: BatchShape, numBatches: number): Promise<BatchTimes[]> {
    const times: BatchTimes[] = [];
    for (let i = 0; i < numBatches; i++) times.push(await runBatch(this.engine, shape, this.random));
    return times;
  }

  /** The same, measured. */
  async takeTurn(shape: BatchShape, numBatches: number): Promise<BatchTurn> {
    const before = await this.coreTimes();
    const { value: times, limits } = await limitsAround(this.meter, () => this.run(shape, numBatches));
    const after = await this.coreTimes();
    return { times, limits, hostShare: (after.hostMs - before.hostMs) / (after.stepMs - before.stepMs) };
  }

  async close(): Promise<void> {
    this.meter.close();
    await this.engine.close();
  }

  /** Time of the core's steps so far, and of that its own work. */
  private async coreTimes(): Promise<{ stepMs: number; hostMs: number }> {
    // A core that has nothing more to do sends its statistics once.
    await Bun.sleep(STATS_DELAY_MS);
    const { stepMs = 0, hostMs = 0 } = this.engine.client.stats()[0] ?? {};
    return { stepMs, hostMs };
  }
}

/** A batch in several steps would have the rates of smaller ones. */
async function checkFits(engineArgs: EngineArgs, largestBatch: number): Promise<void> {
  const { scheduler, parallel } = await engineArgs.createEngineConfig({}, 'llm-class');
  const room = scheduler.maxNumSeqs * parallel.dataParallelSize;
  if (largestBatch <= room) return;
  throw new UsageError(
    `A batch of ${largestBatch} does not fit into a step of ${room} requests: give --max-num-seqs ${Math.ceil(largestBatch / parallel.dataParallelSize)} or more.`,
  );
}
