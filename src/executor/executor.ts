import type { BaoConfig } from '../config/bao-config.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { PendingStep } from '../worker/pending-step.ts';

/** Memory that a sleeping engine does without. Names are vLLM's. */
export const MEMORY_TAGS = ['weights', 'kv_cache'] as const;
export type MemoryTag = (typeof MEMORY_TAGS)[number];

/**
 * Runs the model for one engine core, on one worker or many. The core calls, in this order: `initDevice`, `loadModel`, `kvCacheSpecs`,
 * `determineAvailableMemory`, `initializeFromConfig`, then `execute` for each step.
 */
export interface Executor {
  initDevice(): Promise<void>;
  loadModel(): Promise<void>;
  kvCacheSpecs(): Map<string, KvCacheSpec>;
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

const factories = new Map<string, () => Promise<ExecutorFactory>>([
  [
    'uni',
    async () => {
      const { UniProcExecutor } = await import('./uniproc-executor.ts');
      return (context) => new UniProcExecutor(context);
    },
  ],
]);

/** Adds an executor that `--distributed-executor-backend NAME` can choose. For plugins. */
export function registerExecutor(name: string, factory: ExecutorFactory): void {
  factories.set(name, async () => factory);
}

/** The executor that the configuration asks for; an unknown name is an error that lists the known ones. */
export async function getExecutorClass(backend: string | null): Promise<ExecutorFactory> {
  const name = backend ?? 'uni';
  const load = factories.get(name);
  if (load === undefined) {
    throw new Error(
      `--distributed-executor-backend ${name} is not known; choose one of ${[...factories.keys()].join(', ')}.`,
    );
  }
  return load();
}
