import { join } from 'node:path';
import type { BaoConfig } from '../config/bao-config.ts';
import { tokensPerDecode } from '../config/speculative-config.ts';
import { createDevice } from '../device/create-device.ts';
import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { MemoryScope } from '../device/memory-scope.ts';
import { freeOnFailure } from '../device/release.ts';
import type { KvCacheConfig, KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import { ModelWork } from '../layers/model-work.ts';
import { openWeights } from '../loader/open-weights.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import { logger } from '../logging/logger.ts';
import { LoRALoadError } from '../lora/lora-error.ts';
import { LoRALayers } from '../lora/lora-layers.ts';
import { LoRAManager } from '../lora/lora-manager.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import { type DenseModuleWeights, type LoadModelOptions, loadModel } from '../models/load-model.ts';
import type { CausalLM, Model } from '../models/model.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { bindDraftKvCache, draftKvCacheSpecs, draftShape, maxDraftTokens } from './draft-layers.ts';
import { DraftModelRunner } from './draft-model-runner.ts';
import { allocateKvCaches, availableKvCacheBytes, checkKvCacheFits } from './kv-cache-memory.ts';
import { type LoadedModel, loadFor } from './loaded-model.ts';
import type { MemoryTag } from './memory-tags.ts';
import { ModelRunner } from './model-runner.ts';
import type { OutputStage } from './output-stage.ts';
import type { PendingStep } from './pending-step.ts';
import { PoolingStage } from './pooling-stage.ts';
import { rehearseStep } from './rehearse-step.ts';
import { SamplingStage } from './sampling-stage.ts';
import type { StepShape } from './step-inputs.ts';
import type { TokenTable } from './token-table.ts';

const log = logger('worker');

/** One device with its part of the model and of the KV cache. */
export class Worker {
  private device: Device | null = null;
  /** Asleep, it knows everything but its weights. */
  private model: LoadedModel | null = null;
  /** Who guesses for it; null: nobody. */
  private draft: CausalLM | null = null;
  private work: ModelWork | null = null;
  /** The memory of their weights; null before they are loaded and while they are asleep. */
  private weights: MemoryScope | null = null;
  private kvCacheConfig: KvCacheConfig | null = null;
  /** By layer; null before they are allocated and while they are asleep. */
  private kvCaches: Map<string, DevicePtr> | null = null;
  private loraLayers: LoRALayers | null = null;
  private loras: LoRAManager | null = null;
  private runner: ModelRunner | null = null;
  /** The runner's memory; null where there is no runner. */
  private runnerMemory: MemoryScope | null = null;

  constructor(
    private readonly config: BaoConfig,
    private readonly coreIndex: number,
  ) {}

  async initDevice(): Promise<void> {
    this.device = await createDevice(this.config.device.device, {
      threads: this.config.device.cpuThreads,
      bindThreads: this.config.device.cpuThreadsBind === 'auto',
      coreIndex: this.coreIndex,
      numCores: this.config.parallel.dataParallelSize,
      activationDtype: this.config.model.dtype,
      replaySizes: this.config.compilation.cudagraphCaptureSizes,
    });
    log.info(`Device: ${this.device.description}`);
  }

  async loadModel(): Promise<void> {
    const { model, cache, scheduler, lora } = this.config;
    if (lora.enableLora) {
      this.loraLayers ??= new LoRALayers(this.requireDevice(), {
        numSlots: lora.maxCpuLoras,
        dtype: lora.loraDtype,
        maxClasses: lora.maxLoraClsLabels,
      });
    }
    const started = performance.now();
    const memory = new MemoryScope(this.requireDevice());
    this.work = new ModelWork(dtypeBytes(memory.activationDtype));
    const weights = await this.openWeights(model.folder);
    const dense: DenseModuleWeights[] = [];
    try {
      for (const { path, ...layer } of model.pooling?.dense ?? []) {
        dense.push({ ...layer, weights: await this.openWeights(join(model.folder, path)) });
      }
      const options: LoadModelOptions = {
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
        work: this.work,
      };
      this.model = await loadFor(model.pooling, options, dense);
      this.rehearse(memory, this.model, options);
      this.draft = await this.loadDraft(options);
      this.weights = memory;
    } catch (error) {
      memory.freeAll();
      throw error;
    } finally {
      for (const source of [weights, ...dense.map((module) => module.weights)]) source.close();
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    log.info(`Loading weights took ${seconds} seconds`, { bytes: weights.totalBytes });
  }

  /** Beside the model, of the same options. */
  private async loadDraft(options: LoadModelOptions): Promise<CausalLM | null> {
    const { speculative } = this.config;
    if (speculative?.method !== 'draft_model') return null;
    const { model: name, folder, hf: config, quantization } = speculative;
    const weights = await this.openWeights(folder);
    try {
      const { maxNumSeqs } = this.config.scheduler;
      const { work: _, ...common } = options;
      const limits = { maxNumTokens: maxDraftTokens({ ...options, maxNumSeqs }), maxLogitRows: maxNumSeqs };
      const model = await loadModel({ ...common, ...limits, config, weights, quantization, adapters: null });
      this.rehearse(options.device, { kind: 'causal', model }, limits);
      log.info(`Draft model: ${name}`, { bytes: weights.totalBytes });
      return model;
    } finally {
      weights.close();
    }
  }

  private openWeights(folder: string): Promise<WeightSource> {
    const { model, load } = this.config;
    return openWeights(folder, { loadFormat: load.loadFormat, seed: model.seed, dtype: model.dtype });
  }

  /** What computing the loaded model takes. */
  modelWork(): ModelWork {
    if (this.work === null) throw new Error('the worker has no model: loadModel comes first');
    return this.work;
  }

  kvCacheSpecs(): Map<string, KvCacheSpec> {
    const specs = this.requireModel().kvCacheSpecs();
    return this.draft === null ? specs : new Map([...specs, ...draftKvCacheSpecs(this.draft)]);
  }

  determineAvailableMemory(): number {
    const { maxCpuLoras, maxLoraRank } = this.config.lora;
    const loraBytes = maxCpuLoras * (this.loraLayers?.bytesOfRank(maxLoraRank) ?? 0);
    return availableKvCacheBytes(this.config, this.requireDevice(), this.kvCacheSpecs(), loraBytes);
  }

  initializeFromConfig(kvCache: KvCacheConfig): void {
    checkKvCacheFits(this.config, this.requireDevice(), kvCache);
    this.kvCacheConfig = kvCache;
    this.kvCaches = allocateKvCaches(this.requireDevice(), kvCache);
    const { maxLoraRank, modules } = this.config.lora;
    if (this.loraLayers !== null) this.loras = new LoRAManager(this.loraLayers, maxLoraRank);
    for (const module of modules) this.addLora(module);
    this.createRunner();
  }

  /** Frees weights, adapters and KV cache. Called with no step in flight. */
  sleep(): void {
    const device = this.requireDevice();
    this.closeRunner();
    device.forgetReplays();
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
    if (tags.includes('kv_cache')) {
      this.kvCaches ??= allocateKvCaches(this.requireDevice(), this.requireKvCacheConfig());
    }
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
    this.closeRunner();
    this.loraLayers?.close();
    this.device?.close();
  }

  /** Where its memory can't be had, none of it is kept. */
  private createRunner(): void {
    const device = this.requireDevice();
    const memory = new MemoryScope(device);
    this.runner = freeOnFailure(
      () => memory.freeAll(),
      () => this.newRunner(memory),
    );
    this.runnerMemory = memory;
    log.debug('Memory', device.memoryReport());
  }

  private closeRunner(): void {
    this.runner?.close();
    this.runner = null;
    this.runnerMemory?.freeAll();
    this.runnerMemory = null;
  }

  private newRunner(device: Device): ModelRunner {
    const model = this.requireModel();
    model.bindKvCache(this.kvCaches!);
    const { maxNumSeqs, maxNumBatchedTokens } = this.config.scheduler;
    const { maxModelLen, hf } = this.config.model;
    const loras = this.loraLayers && this.loras && { layers: this.loraLayers, manager: this.loras };
    const limits = { maxNumSeqs, maxNumBatchedTokens, maxLogitRows: this.maxLogitRows, maxModelLen };
    const options = { ...limits, vocabSize: hf.vocabSize, loras };
    return new ModelRunner(device, model, this.requireKvCacheConfig(), options, {
      createStage: (tokens) => this.createStage(device, tokens),
      createDrafter: (tokens, shape) => this.createDrafter(device, tokens, shape),
    });
  }

  private rehearse(
    device: Device,
    model: LoadedModel,
    { maxNumTokens, maxLogitRows }: Pick<LoadModelOptions, 'maxNumTokens' | 'maxLogitRows'>,
  ): void {
    const { scheduler, model: config, lora } = this.config;
    rehearseStep(device, model, {
      numTokens: maxNumTokens,
      numSeqs: scheduler.maxNumSeqs,
      seqLen: config.maxModelLen,
      numRows: maxLogitRows,
      loras: this.loraLayers && { layers: this.loraLayers, maxRank: lora.maxLoraRank },
    });
  }

  /** Throws LoRALoadError for an adapter that can't be loaded. */
  addLora(request: LoRARequest): void {
    if (this.loras === null) throw new LoRALoadError(request.name, 'LoRA is not enabled (--enable-lora).');
    this.loras.load(request);
  }

  removeLora(id: number): void {
    this.loras?.remove(id);
  }

  private createStage(device: Device, tokens: TokenTable): OutputStage {
    const { scheduler, model: config } = this.config;
    const { hiddenSize } = config.hf;
    if (this.model?.kind === 'pooling') {
      const { maxNumBatchedTokens, maxNumSeqs } = scheduler;
      const adapters = this.loraLayers;
      const options = { ...this.model, hiddenSize, maxNumBatchedTokens, maxNumSeqs, adapters };
      return new PoolingStage(device, this.model.model, options);
    }
    if (this.model === null) throw new Error('the worker has no model: loadModel comes first');
    return new SamplingStage(device, this.model.model, tokens, {
      maxLogitRows: this.maxLogitRows,
      hiddenSize,
      logprobsMode: config.logprobsMode,
    });
  }

  private createDrafter(device: Device, tokens: TokenTable, shape: StepShape): DraftModelRunner | null {
    const { speculative } = this.config;
    if (speculative?.method !== 'draft_model' || this.draft === null) return null;
    const { numSpeculativeTokens, hf } = speculative;
    bindDraftKvCache(this.draft, this.kvCaches!);
    const options = { numSpeculativeTokens, hiddenSize: hf.hiddenSize };
    return new DraftModelRunner(device, this.draft, tokens, draftShape(shape), options);
  }

  /** Of each token a pooled row may be asked for; tokens are sampled one a request, and one behind each draft. */
  private get maxLogitRows(): number {
    const { speculative, model, scheduler } = this.config;
    const { maxNumSeqs, maxNumBatchedTokens } = scheduler;
    return model.pooling === null ? maxNumSeqs * tokensPerDecode(speculative) : maxNumBatchedTokens;
  }

  private requireDevice(): Device {
    if (this.device === null) throw new Error('the worker has no device: initDevice comes first');
    return this.device;
  }

  private requireModel(): Model {
    if (this.model === null) throw new Error('the worker has no model: loadModel comes first');
    return this.model.model;
  }

  private requireKvCacheConfig(): KvCacheConfig {
    if (this.kvCacheConfig === null) throw new Error('the worker has no KV cache: initializeFromConfig comes first');
    return this.kvCacheConfig;
  }
}
