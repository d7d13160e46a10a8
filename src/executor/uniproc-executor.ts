import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { ModelWork } from '../layers/model-work.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { MemoryTag } from '../worker/memory-tags.ts';
import type { PendingStep } from '../worker/pending-step.ts';
import { Worker } from '../worker/worker.ts';
import type { Executor, ExecutorContext } from './executor.ts';

/** One worker in the core's own thread. */
export class UniProcExecutor implements Executor {
  private readonly worker: Worker;

  constructor({ config, coreIndex }: ExecutorContext) {
    this.worker = new Worker(config, coreIndex);
  }

  initDevice(): Promise<void> {
    return this.worker.initDevice();
  }

  loadModel(): Promise<void> {
    return this.worker.loadModel();
  }

  kvCacheSpecs(): Map<string, KvCacheSpec> {
    return this.worker.kvCacheSpecs();
  }

  modelWork(): ModelWork {
    return this.worker.modelWork();
  }

  determineAvailableMemory(): number {
    return this.worker.determineAvailableMemory();
  }

  initializeFromConfig(config: KvCacheConfig): void {
    this.worker.initializeFromConfig(config);
  }

  positionOffset(numPromptTokens: number): number {
    return this.worker.positionOffset(numPromptTokens);
  }

  addLora(request: LoRARequest): void {
    this.worker.addLora(request);
  }

  removeLora(id: number): void {
    this.worker.removeLora(id);
  }

  execute(scheduled: SchedulerOutput): PendingStep {
    return this.worker.execute(scheduled);
  }

  sleep(): void {
    this.worker.sleep();
  }

  wakeUp(tags: readonly MemoryTag[]): Promise<void> {
    return this.worker.wakeUp(tags);
  }

  shutdown(): void {
    this.worker.shutdown();
  }
}
