import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { GpuFacts } from '../device/cuda/gpu-facts.ts';
import { NoCudaDeviceError } from '../device/cuda/no-cuda-device.ts';
import type { CacheDType, FloatDType } from '../device/dtype.ts';
import { LoadError } from '../loader/load-error.ts';
import { HfConfigError } from '../models/config-fields.ts';
import type { HfConfig } from '../models/hf-config.ts';
import { canChunk } from '../pooling/pooling-config.ts';
import type { BaoConfig, ModelConfig, SchedulerConfig } from './bao-config.ts';
import { resolveBatchLimits, type UsageContext } from './batch-defaults.ts';
import { resolveCompilation } from './capture-sizes.ts';
import { checkConfig, checkDevices, checkFlags } from './checks.ts';
import { ConfigError } from './config-error.ts';
import { readEnvironment } from './environment.ts';
import { fieldName } from './flags/flag.ts';
import { defaultFlagValues, FLAG_GROUPS, type FlagValues, type GroupKey, type GroupValues } from './flags/index.ts';
import { readGenerationDefaults } from './generation-config.ts';
import { checkLoRAModules, type LoRAConfig, type LoRAModule, parseLoRAModule } from './lora-config.ts';
import { resolveMaxModelLen } from './max-model-len.ts';
import { mergeObjects } from './parse-value.ts';
import { readChatTemplate } from './read-chat-template.ts';
import { readJsonFile } from './read-json-file.ts';
import { resolvePooling } from './resolve-pooling.ts';
import { readSentenceTransformers } from './sentence-transformers.ts';
import {
  checkDraftModel,
  readSpeculativeFlags,
  type SpeculativeArgs,
  type SpeculativeConfig,
  tokensPerDecode,
} from './speculative-config.ts';
import { readStructuredOutputsConfig } from './structured-outputs-config.ts';

export interface ModelFolderOptions {
  revision: string | null;
  downloadDir: string | null;
  hfToken: string | null;
  /** False: configuration and tokenizer only. */
  weights: boolean;
}

/** Where models come from; a test has its own. */
export interface ModelEnvironment {
  resolveModelFolder(model: string, options: ModelFolderOptions): Promise<string>;
  parseHfConfig(raw: unknown, source: string): HfConfig;
  /** CPU cores that this process may use. */
  cpuCores(): number;
  /** Throws a NoCudaDeviceError. */
  gpuFacts(device: GpuDevice): Promise<GpuFacts>;
}

type GpuDevice = Extract<FlagValues['device'], 'cuda' | 'cuda-emulation'>;

/** What an operator gave, from all sources together, with defaults for the rest: one value a flag, nothing resolved. */
export class EngineArgs {
  readonly values: Readonly<FlagValues>;

  constructor(given: Partial<FlagValues> = {}) {
    this.values = { ...defaultFlagValues(), ...given };
  }

  /**
   * Command line over environment over config file over defaults.
   *
   * @throws UsageError
   */
  static async fromCliArgs(
    args: { given: Partial<FlagValues>; configFile: string | null },
    environment: Readonly<Record<string, string | undefined>> = process.env,
  ): Promise<EngineArgs> {
    const fromFile = args.configFile === null ? {} : await readFlagsOf(args.configFile);
    return new EngineArgs({ ...fromFile, ...readEnvironment(environment), ...args.given });
  }

  /**
   * Finds the model (downloading it if need be), reads its configuration and decides all that the flags leave open. No weight is read.
   *
   * @throws ConfigError in one sentence
   */
  async createEngineConfig(
    environment?: Partial<ModelEnvironment>,
    usage: UsageContext = 'api-server',
  ): Promise<BaoConfig> {
    checkFlags(this.values);
    const speculation = readSpeculativeFlags(this.values);
    const chatTemplate = readChatTemplate(this.values.chatTemplate);
    const models = { ...(await defaultEnvironment()), ...environment };
    const gpu = await this.askGpu(models);
    checkDevices(this.values, { cpuCores: models.cpuCores(), gpus: gpu?.numDevices ?? null });
    const model = await this.resolveModel(models);
    const cache = this.group('cache');
    const scheduler = this.resolveScheduler(model, speculation, usage, gpu);
    const config: BaoConfig = {
      model,
      load: this.group('load'),
      cache: {
        ...cache,
        kvCacheDtype: resolveCacheDtype(cache.kvCacheDtype, model.dtype),
        enablePrefixCaching: cache.enablePrefixCaching && isChunkable(model),
      },
      parallel: this.group('parallel'),
      scheduler,
      lora: await this.resolveLoRA(models, model),
      speculative: speculation && (await this.resolveSpeculation(models, speculation, model)),
      device: { ...this.group('device'), device: this.values.device === 'auto' ? 'cpu' : this.values.device },
      compilation: resolveCompilation(this.values, scheduler.maxNumSeqs),
      structuredOutputs: readStructuredOutputsConfig(this.values.structuredOutputsConfig),
      frontend: { ...this.group('frontend'), chatTemplate },
      observability: this.group('observability'),
      logging: this.group('logging'),
      plugins: { plugin: [...this.values.plugin, ...this.parserPlugins()] },
    };
    checkConfig(config);
    return config;
  }

  private group<Key extends GroupKey>(key: Key): GroupValues<Key> {
    const fields = Object.keys(FLAG_GROUPS[key].flags).map((name) => fieldName(name) as keyof FlagValues);
    return structuredClone(Object.fromEntries(fields.map((field) => [field, this.values[field]]))) as GroupValues<Key>;
  }

  /** Plugins like any others: each thread loads them. */
  private parserPlugins(): string[] {
    const { toolParserPlugin, reasoningParserPlugin } = this.values;
    return [toolParserPlugin, reasoningParserPlugin].filter((module) => module !== null);
  }

  private async resolveModel(environment: ModelEnvironment): Promise<ModelConfig> {
    const {
      tokenizer: _,
      hfToken,
      hfOverrides,
      dtype,
      runner,
      convert,
      poolerConfig,
      maxModelLen,
      generationConfig,
      overrideGenerationConfig,
      ...asGiven
    } = this.group('model');
    const hub = { downloadDir: this.values.downloadDir, hfToken };
    return tellOperator(async () => {
      const folder = await environment.resolveModelFolder(asGiven.model, {
        ...hub,
        revision: asGiven.revision,
        weights: this.values.loadFormat !== 'dummy',
      });
      const hf = await readHfConfig(folder, hfOverrides, environment);
      const sentenceTransformers = await readSentenceTransformers(folder);
      const tokenizerFolder = await this.resolveTokenizerFolder(environment, folder);
      const pooling = resolvePooling({ runner, convert, poolerConfig }, hf, sentenceTransformers, tokenizerFolder);
      const defaults = await readGenerationDefaults(folder, generationConfig, overrideGenerationConfig);
      return {
        ...asGiven,
        servedModelName: asGiven.servedModelName.length > 0 ? asGiven.servedModelName : [asGiven.model],
        folder,
        tokenizerFolder,
        hf,
        pooling,
        dtype: resolveDtype(dtype, hf.torchDtype),
        maxModelLen: resolveMaxModelLen(
          maxModelLen,
          hf,
          pooling === null ? null : (sentenceTransformers?.maxSeqLength ?? null),
        ),
        maxModelLenAuto: maxModelLen === -1,
        eosTokenIds: [...new Set([...hf.eosTokenIds, ...defaults.eosTokenIds])].sort((a, b) => a - b),
        defaultSamplingParams: defaults.samplingParams,
        maxTokensLimit: defaults.maxTokensLimit,
      };
    });
  }

  /** The model's own, unless another is named; null with `--skip-tokenizer-init`. */
  private async resolveTokenizerFolder(environment: ModelEnvironment, modelFolder: string): Promise<string | null> {
    const { skipTokenizerInit, tokenizer, tokenizerRevision, downloadDir, hfToken } = this.values;
    if (skipTokenizerInit) return null;
    if (tokenizer === null) return modelFolder;
    return environment.resolveModelFolder(tokenizer, {
      downloadDir,
      hfToken,
      revision: tokenizerRevision,
      weights: false,
    });
  }

  private async resolveLoRA(environment: ModelEnvironment, model: ModelConfig): Promise<LoRAConfig> {
    const { loraModules, maxCpuLoras, loraDtype, ...asGiven } = this.group('lora');
    const given = loraModules.map(parseLoRAModule);
    checkLoRAModules(given, model.servedModelName);
    const { downloadDir, hfToken } = this.values;
    const modules: LoRAModule[] = [];
    for (const module of given) {
      const hub = { downloadDir, hfToken, revision: null, weights: true };
      const path = await tellOperator(() => environment.resolveModelFolder(module.root, hub));
      modules.push({ ...module, id: modules.length + 1, path });
    }
    return {
      ...asGiven,
      modules,
      maxCpuLoras: maxCpuLoras ?? asGiven.maxLoras,
      loraDtype: loraDtype === 'auto' ? model.dtype : loraDtype,
    };
  }

  /** Null where the device is no GPU, or nothing depends on it. */
  private async askGpu(environment: ModelEnvironment): Promise<GpuFacts | null> {
    const { device, maxNumSeqs, maxNumBatchedTokens, dataParallelSize } = this.values;
    if (device !== 'cuda' && device !== 'cuda-emulation') return null;
    if (maxNumSeqs !== null && maxNumBatchedTokens !== null && dataParallelSize === 1) return null;
    return tellOperator(() => environment.gpuFacts(device));
  }

  private async resolveSpeculation(
    environment: ModelEnvironment,
    speculation: SpeculativeArgs,
    target: ModelConfig,
  ): Promise<SpeculativeConfig> {
    if (target.pooling !== null) {
      throw new ConfigError(`--speculative-config is for models that generate, and ${target.model} is pooled.`);
    }
    if (speculation.method === 'ngram') return speculation;
    const { revision, ...draft } = speculation;
    const { downloadDir, hfToken, loadFormat } = this.values;
    const hub = { downloadDir, hfToken, revision, weights: loadFormat !== 'dummy' };
    return tellOperator(async () => {
      const folder = await environment.resolveModelFolder(draft.model, hub);
      const hf = await readHfConfig(folder, {}, environment);
      checkDraftModel({ ...draft, hf }, target);
      return { ...draft, folder, hf };
    });
  }

  private resolveScheduler(
    model: ModelConfig,
    speculation: SpeculativeArgs | null,
    usage: UsageContext,
    gpu: GpuFacts | null,
  ): SchedulerConfig {
    const asGiven = this.group('scheduler');
    const given = { ...asGiven, enableChunkedPrefill: asGiven.enableChunkedPrefill && isChunkable(model) };
    return {
      ...given,
      ...resolveBatchLimits(given, model.maxModelLen, usage, gpu, tokensPerDecode(speculation)),
      asyncScheduling: given.asyncScheduling ?? speculation === null,
    };
  }
}

/** Whether a prompt's hidden states may be computed apart, or found in the prefix cache. */
function isChunkable({ pooling }: ModelConfig): boolean {
  return pooling === null || canChunk(pooling);
}

function resolveCacheDtype(flag: GroupValues<'cache'>['kvCacheDtype'], modelDtype: FloatDType): CacheDType {
  if (flag === 'auto') return modelDtype;
  return flag === 'fp8' ? 'fp8_e4m3' : flag;
}

/** float32 checkpoints are computed in bfloat16: half the memory traffic, and the CPU's dot products take it. */
function resolveDtype(flag: GroupValues<'model'>['dtype'], checkpoint: FloatDType): FloatDType {
  if (flag === 'auto') return checkpoint === 'float32' ? 'bfloat16' : checkpoint;
  if (flag === 'half') return 'float16';
  return flag === 'float' ? 'float32' : flag;
}

async function readHfConfig(
  folder: string,
  overrides: Readonly<Record<string, unknown>>,
  environment: ModelEnvironment,
): Promise<HfConfig> {
  const path = join(folder, 'config.json');
  const raw = await readJsonFile(path);
  if (raw === null) throw new ConfigError(`${folder} is no model folder: it has no config.json.`);
  return environment.parseHfConfig(mergeObjects(raw, overrides), path);
}

/** Errors of the loader and of the model's configuration are the operator's to mend. */
async function tellOperator<Result>(action: () => Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (error) {
    const isTheirs = error instanceof LoadError || error instanceof HfConfigError || error instanceof NoCudaDeviceError;
    throw isTheirs ? new ConfigError(error.message) : error;
  }
}

async function defaultEnvironment(): Promise<ModelEnvironment> {
  const [{ resolveModelFolder }, { parseHfConfig }] = await Promise.all([
    import('../loader/model-folder.ts'),
    import('../models/parse-hf-config.ts'),
  ]);
  return { resolveModelFolder, parseHfConfig, cpuCores: availableParallelism, gpuFacts };
}

/** Loaded where a GPU is asked for. */
async function gpuFacts(device: GpuDevice): Promise<GpuFacts> {
  return (await import('../device/cuda/gpu-facts.ts')).gpuFacts(device);
}

async function readFlagsOf(path: string): Promise<Partial<FlagValues>> {
  const { readConfigFile } = await import('./config-file.ts');
  return readConfigFile(path);
}
