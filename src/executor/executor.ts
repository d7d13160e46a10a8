import type { BaoConfig } from '../config/bao-config.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { ModelWork } from '../layers/model-work.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { MemoryTag } from '../worker/memory-tags.ts';
import type { PendingStep } from '../worker/pending-step.ts';

/**
 * Runs the model for one engine core, on one worker or many. The core calls, in this order: `initDevice`, `loadModel`, `kvCacheSpecs`,
 * `determineAvailableMemory`, `initializeFromConfig`, then `execute` for each step.
 */
export interface Executor {
  initDevice(): Promise<void>;
  loadModel(): Promise<void>;
  kvCacheSpecs(): Map<string, KvCacheSpec>;
  /** What computing the model takes on one device. */
  modelWork(): ModelWork;
  /** Bytes that the KV cache may take. */
  determineAvailableMemory(): number;
  initializeFromConfig(config: KvCacheConfig): void;
  /** CausalLM.positionOffset of a request with so many prompt tokens. */
  positionOffset(numPromptTokens: number): number;
  /** Reads an adapter into memory. Throws LoRALoadError. */
  addLora(request: LoRARequest): void;
  /** Frees an adapter, once no request that runs has it. Unknown ids are ignored. */
  removeLora(id: number): void;
  /**
   * Enqueues one step and returns while it runs. A second step may be enqueued before the first is waited for (async scheduling).
   * Throws when the step can't be run; the core then fails.
   */
  execute(scheduled: SchedulerOutput): PendingStep;
  /** Frees weights and KV cache; no step may be in flight. */
  sleep(): void;
  /**
   * Takes back what `sleep` freed: weights are read again, the KV cache is empty. Steps may be executed when both are back. Throws when it can't be had;
   * what is asleep stays so.
   */
  wakeUp(tags: readonly MemoryTag[]): Promise<void>;
  shutdown(): void;
}

export interface ExecutorContext {
  config: BaoConfig;
  /** Index of the engine core (data-parallel rank). */
  coreIndex: number;
}

export type ExecutorFactory = (context: ExecutorContext) => Executor;
