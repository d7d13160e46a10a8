import type { BaoConfig } from '../config/bao-config.ts';
import { createDevice } from '../device/create-device.ts';
import type { Device, DevicePtr } from '../device/device.ts';
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
  private model: CausalLM | null = null;
  private loraLayers: LoRALayers | null = null;
  private loras: LoRAManager | null = null;
  private runner: ModelRunner | null = null;
  private readonly kvCaches: DevicePtr[] = [];

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
      this.loraLayers = new LoRALayers(this.requireDevice(), { numSlots: lora.maxCpuLoras, dtype: lora.loraDtype });
    }
    const started = performance.now();
    const weights = await openWeights(model.folder, {
      loadFormat: load.loadFormat,
      seed: model.seed,
      dtype: model.dtype,
    });
    try {
      this.model = await loadModel({
        device: this.requireDevice(),
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
    const device = this.requireDevice();
    const model = this.requireModel();
    const caches = new Map<string, DevicePtr>();
    for (const tensor of kvCache.tensors) {
      const ptr = device.alloc(tensor.bytes, 'KV cache');
      this.kvCaches.push(ptr);
      for (const layer of tensor.sharedBy) caches.set(layer, ptr);
    }
    model.bindKvCache(caches);
    const { maxLoraRank, modules } = this.config.lora;
    if (this.loraLayers !== null) this.loras = new LoRAManager(this.loraLayers, maxLoraRank);
    for (const module of modules) this.addLora(module);
    this.runner = new ModelRunner(device, model, kvCache, {
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

  positionOffset(numPromptTokens: number): number {
    return this.requireModel().positionOffset?.(numPromptTokens) ?? 0;
  }

  /** Throws LoRALoadError for an adapter that can't be loaded. */
  addLora(request: LoRARequest): void {
    if (this.loras === null) throw new LoRALoadError(request.name, 'LoRA is not enabled (--enable-lora).');
    this.loras.load(request);
  }

  removeLora(id: number): void {
    this.loras?.remove(id);
  }

  execute(scheduled: SchedulerOutput): PendingStep {
    if (this.runner === null) throw new Error('a step was executed before initializeFromConfig');
    return this.runner.execute(scheduled);
  }

  shutdown(): void {
    this.runner?.close();
    this.loraLayers?.close();
    for (const ptr of this.kvCaches) this.device?.free(ptr);
    this.device?.close();
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
}
