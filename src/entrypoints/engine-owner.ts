import type { SleepLevel, SleepMode, WakeTag } from '../engine/messages.ts';
import type { OfflineEngine } from './offline-engine.ts';

/** What can be done with an engine besides generating; LLM and AsyncLLM have it in common. */
export abstract class EngineOwner {
  protected constructor(protected readonly engine: OfflineEngine) {}

  /**
   * Forgets the prompts that the engine remembers; false while requests run.
   *
   * @param resetRunningRequests their keys and values are forgotten too, and computed anew
   */
  async resetPrefixCache(resetRunningRequests = false): Promise<boolean> {
    return this.engine.client.resetPrefixCache(resetRunningRequests);
  }

  /**
   * Frees what the engine holds until {@link wakeUp}: at levels 1 and 2 weights and KV cache (needs `enableSleepMode`), at level 0 nothing. Requests
   * that come meanwhile wait.
   *
   * @param mode what happens to running requests: aborted, finished first, or kept and computed anew
   * @throws ValidationError without `enableSleepMode`
   */
  async sleep(level: SleepLevel = 1, mode: SleepMode = 'abort'): Promise<void> {
    await this.engine.client.sleep(level, mode);
  }

  /**
   * Takes back what {@link sleep} freed, or what the tags name of it; the weights are read from the model's folder again.
   *
   * @throws Error where that can't be done; the engine sleeps on then
   */
  async wakeUp(tags?: readonly WakeTag[]): Promise<void> {
    await this.engine.client.wakeUp(tags);
  }

  async isSleeping(): Promise<boolean> {
    return this.engine.client.isSleeping();
  }

  /** Stops the engine and frees what it holds. */
  async close(): Promise<void> {
    await this.engine.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
