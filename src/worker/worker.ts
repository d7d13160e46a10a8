import type { BaoConfig } from '../config/bao-config.ts';
import { createDevice } from '../device/create-device.ts';
import type { Device, DevicePtr } from '../device/device.ts';
import { MemoryScope } from '../device/memory-scope.ts';
import type { MemoryTag } from '../executor/executor.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import { openWeights } from '../loader/open-weights.ts';
import { logger } from '../logging/logger.ts';
import { LoRALoadError } from '../lora/lora-error.ts';
import { LoRALayers } from '../lora/lora-layers.ts';
import { LoRAManager } from '../lora/lora-manager.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import { loadModel } from '../models/load-model.ts';
import type { CausalLM } from '../models/model.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { availableKvCacheBytes } from './kv-cache-memory.ts';
import { ModelRunner } from './model-runner.ts';
import type { PendingStep } from './pending-step.ts';

const log = logger('worker');

/** One device with its part of the model and of the KV cache. */
export class Worker {
  private device: Device | null = null;
  /** Asleep, it knows everything but its weights. */
  private model: CausalLM | null = null;
  /** The memory of the model's weights; null before they are loaded and while they are asleep. */
  private weights: MemoryScope | null = null;
  private kvCacheConfig: KvCacheConfig | null = null;
  /** By layer; null before they are allocated and while they are asleep. */
  private kvCaches: Map<string, DevicePtr> | null = null;
  private loraLayers: LoRALayers | null = null;
  private loras: LoRAManager | null = null;
  private runner: ModelRunner | null = null;

  constructor(
    private readonly config: BaoConfig,
    private readonly coreIndex: number,
  ) {}

  async initDevice(): Promise<void> {
    this.device = await createDevice(this.config.device.device, {
      threads: this.config.device.cpuThreads,
      coreIndex: this.coreIndex,
      numCores: this.config.parallel.dataParallelSize,
      activationDtype: this.config.model.dtype,
    });
    log.info(`Device: ${this.device.description}`);
  }

  async loadModel(): Promise<void> {
    const { model, load, cache, scheduler, lora } = this.config;
    if (lora.enableLora) {
      this.loraLayers ??= new LoRALayers(this.requireDevice(), { numSlots: lora.maxCpuLoras, dtype: lora.loraDtype });
    }
    const started = performance.now();
    const memory = new MemoryScope(this.requireDevice());
    const weights = await openWeights(model.folder, {
      loadFormat: load.loadFormat,
      seed: model.seed,
      dtype: model.dtype,
    });
    try {
      this.model = await loadModel({
        device: memory,
        config: model.hf,
        weights,
        dtype: model.dtype,
        kvCacheDtype: cache.kvCacheDtype,
        quantization: model.quantization,
        blockSize: cache.blockSize,
        maxNumTokens: scheduler.maxNumBatchedTokens,
        maxLogitRows: this.maxLogitRows,
        maxModelLen: model.maxModelLen,
        tensorParallel: { rank: 0, size: 1 },
        adapters: this.loraLayers,
      });
      this.weights = memory;
    } catch (error) {
      memory.freeAll();
      throw error;
    } finally {
      weights.close();
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    log.info(`Loading weights took ${seconds} seconds`, { bytes: weights.totalBytes });
  }

  kvCacheSpecs(): Map<string, KvCacheSpec> {
    return this.requireModel().kvCacheSpecs();
  }

  determineAvailableMemory(): number {
    const { maxCpuLoras, maxLoraRank } = this.config.lora;
    const loraBytes = maxCpuLoras * (this.loraLayers?.bytesOfRank(maxLoraRank) ?? 0);
    return availableKvCacheBytes(this.config, this.requireDevice(), this.kvCacheSpecs(), loraBytes);
  }

  initializeFromConfig(kvCache: KvCacheConfig): void {
    this.kvCacheConfig = kvCache;
    this.allocateKvCache();
    const { maxLoraRank, modules } = this.config.lora;
    if (this.loraLayers !== null) this.loras = new LoRAManager(this.loraLayers, maxLoraRank);
    for (const module of modules) this.addLora(module);
    this.createRunner();
  }

  /** Frees weights, adapters and KV cache. Called with no step in flight. */
  sleep(): void {
    const device = this.requireDevice();
    this.runner?.close();
    this.runner = null;
    for (const ptr of new Set(this.kvCaches?.values())) device.free(ptr);
    this.kvCaches = null;
    this.loras?.evictAll();
    this.weights?.freeAll();
    this.weights = null;
    log.info('Asleep: weights and KV cache are freed', device.memoryReport());
  }

  /** Steps can be executed again when weights and KV cache are both back. Adapters are read when requests ask for them. */
  async wakeUp(tags: readonly MemoryTag[]): Promise<void> {
    if (tags.includes('weights') && this.weights === null) await this.loadModel();
    if (tags.includes('kv_cache') && this.kvCaches === null) this.allocateKvCache();
    if (this.weights !== null && this.kvCaches !== null && this.runner === null) this.createRunner();
  }

  positionOffset(numPromptTokens: number): number {
    return this.requireModel().positionOffset?.(numPromptTokens) ?? 0;
  }

  execute(scheduled: SchedulerOutput): PendingStep {
    if (this.runner === null) throw new Error('a step was executed before initializeFromConfig, or asleep');
    return this.runner.execute(scheduled);
  }

  shutdown(): void {
    this.runner?.close();
    this.loraLayers?.close();
    this.device?.close();
  }

  private allocateKvCache(): void {
    const device = this.requireDevice();
    const caches = new Map<string, DevicePtr>();
    for (const tensor of this.requireKvCacheConfig().tensors) {
      const ptr = device.alloc(tensor.bytes, 'KV cache');
      for (const layer of tensor.sharedBy) caches.set(layer, ptr);
    }
    this.kvCaches = caches;
  }

  private createRunner(): void {
    const device = this.requireDevice();
    const model = this.requireModel();
    model.bindKvCache(this.kvCaches!);
    this.runner = new ModelRunner(device, model, this.requireKvCacheConfig(), {
      maxNumSeqs: this.config.scheduler.maxNumSeqs,
      maxNumBatchedTokens: this.config.scheduler.maxNumBatchedTokens,
      maxModelLen: this.config.model.maxModelLen,
      maxLogitRows: this.maxLogitRows,
      hiddenSize: this.config.model.hf.hiddenSize,
      logprobsMode: this.config.model.logprobsMode,
      loras: this.loraLayers && this.loras && { layers: this.loraLayers, manager: this.loras },
    });
    log.debug('Memory', device.memoryReport());
  }

  /** Throws LoRALoadError for an adapter that can't be loaded. */
  addLora(request: LoRARequest): void {
    if (this.loras === null) throw new LoRALoadError(request.name, 'LoRA is not enabled (--enable-lora).');
    this.loras.load(request);
  }

  removeLora(id: number): void {
    this.loras?.remove(id);
  }

  private get maxLogitRows(): number {
    return this.config.scheduler.maxNumSeqs;
  }

  private requireDevice(): Device {
    if (this.device === null) throw new Error('the worker has no device: initDevice comes first');
    return this.device;
  }

  private requireModel(): CausalLM {
    if (this.model === null) throw new Error('the worker has no model: loadModel comes first');
    return this.model;
  }

  private requireKvCacheConfig(): KvCacheConfig {
    if (this.kvCacheConfig === null) throw new Error('the worker has no KV cache: initializeFromConfig comes first');
    return this.kvCacheConfig;
  }
}
