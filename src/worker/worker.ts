import type { BaoConfig } from '../config/bao-config.ts';
import { createDevice } from '../device/create-device.ts';
import type { Device, DevicePtr } from '../device/device.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import { openWeights } from '../loader/open-weights.ts';
import { logger } from '../logging/logger.ts';
import { type LoadModelOptions, loadModel, loadPoolingModel } from '../models/load-model.ts';
import type { CausalLM, Model, PoolingModel } from '../models/model.ts';
import type { PoolingConfig } from '../pooling/pooling-config.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { availableKvCacheBytes } from './kv-cache-memory.ts';
import { ModelRunner, SamplingStage, type TokenTable } from './model-runner.ts';
import type { OutputStage } from './output-stage.ts';
import type { PendingStep } from './pending-step.ts';
import { PoolingStage } from './pooling-stage.ts';

const log = logger('worker');

/** One device with its part of the model and of the KV cache. */
export class Worker {
  private device: Device | null = null;
  private model: LoadedModel | null = null;
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
    const { model, load, cache, scheduler } = this.config;
    const started = performance.now();
    const weights = await openWeights(model.folder, {
      loadFormat: load.loadFormat,
      seed: model.seed,
      dtype: model.dtype,
    });
    try {
      this.model = await loadFor(model.pooling, {
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
    return availableKvCacheBytes(this.config, this.requireDevice(), this.kvCacheSpecs());
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
    const { maxNumSeqs, maxNumBatchedTokens } = this.config.scheduler;
    const { maxModelLen, hf } = this.config.model;
    const options = { maxNumSeqs, maxNumBatchedTokens, maxModelLen, vocabSize: hf.vocabSize };
    this.runner = new ModelRunner(device, model, kvCache, options, (tokens) => this.createStage(tokens));
    log.debug('Memory', device.memoryReport());
  }

  positionOffset(numPromptTokens: number): number {
    return this.requireModel().positionOffset?.(numPromptTokens) ?? 0;
  }

  execute(scheduled: SchedulerOutput): PendingStep {
    if (this.runner === null) throw new Error('a step was executed before initializeFromConfig');
    return this.runner.execute(scheduled);
  }

  shutdown(): void {
    this.runner?.close();
    for (const ptr of this.kvCaches) this.device?.free(ptr);
    this.device?.close();
  }

  private createStage(tokens: TokenTable): OutputStage {
    const { scheduler, model: config } = this.config;
    const device = this.requireDevice();
    const { hiddenSize } = config.hf;
    if (this.model?.kind === 'pooling') {
      const { maxNumBatchedTokens } = scheduler;
      return new PoolingStage(device, this.model.model, { ...this.model, hiddenSize, maxNumBatchedTokens });
    }
    if (this.model === null) throw new Error('the worker has no model: loadModel comes first');
    return new SamplingStage(device, this.model.model, tokens, {
      maxNumSeqs: scheduler.maxNumSeqs,
      maxLogitRows: this.maxLogitRows,
      hiddenSize,
      logprobsMode: config.logprobsMode,
    });
  }

  /** Of each token a pooled row may be asked for; tokens are sampled one a request. */
  private get maxLogitRows(): number {
    const { maxNumSeqs, maxNumBatchedTokens } = this.config.scheduler;
    return this.config.model.pooling === null ? maxNumSeqs : maxNumBatchedTokens;
  }

  private requireDevice(): Device {
    if (this.device === null) throw new Error('the worker has no device: initDevice comes first');
    return this.device;
  }

  private requireModel(): Model {
    if (this.model === null) throw new Error('the worker has no model: loadModel comes first');
    return this.model.model;
  }
}

type LoadedModel =
  | { kind: 'causal'; model: CausalLM }
  | { kind: 'pooling'; model: PoolingModel; config: PoolingConfig };

async function loadFor(pooling: PoolingConfig | null, options: LoadModelOptions): Promise<LoadedModel> {
  if (pooling === null) return { kind: 'causal', model: await loadModel(options) };
  return { kind: 'pooling', model: await loadPoolingModel(options, pooling.convert), config: pooling };
}
