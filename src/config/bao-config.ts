import type { CacheDType, FloatDType } from '../device/dtype.ts';
import type { HfConfig } from '../models/hf-config.ts';
import type { PoolingConfig } from '../pooling/pooling-config.ts';
import type { DefaultSamplingParams } from '../sampling/sampling-params.ts';
import type { GroupValues } from './flags/index.ts';
import type { LoRAConfig } from './lora-config.ts';
import type { SpeculativeConfig } from './speculative-config.ts';

/**
 * The configuration of a whole server: plain data that survives structuredClone, made by `EngineArgs.createEngineConfig` and read-only from then on.
 * A field is the camelCase of its flag; what a flag leaves to be decided (null, auto) is decided here, except where its doc says otherwise.
 */
export interface BaoConfig {
  model: ModelConfig;
  load: LoadConfig;
  cache: CacheConfig;
  parallel: ParallelConfig;
  scheduler: SchedulerConfig;
  structuredOutputs: StructuredOutputsConfig;
  lora: LoRAConfig;
  /** null: every token takes a step of its own. */
  speculative: SpeculativeConfig | null;
  device: DeviceConfig;
  compilation: CompilationConfig;
  frontend: FrontendConfig;
  observability: ObservabilityConfig;
  logging: LoggingConfig;
  plugins: PluginConfig;
}

type ModelFlagsAsGiven = Omit<
  GroupValues<'model'>,
  | 'tokenizer'
  | 'hfToken'
  | 'hfOverrides'
  | 'dtype'
  | 'runner'
  | 'convert'
  | 'poolerConfig'
  | 'maxModelLen'
  | 'generationConfig'
  | 'overrideGenerationConfig'
>;

export interface ModelConfig extends ModelFlagsAsGiven {
  /** The model as the operator named it. */
  model: string;
  /** Names for clients, at least one; the first is the canonical one. */
  servedModelName: string[];
  /** Local folder with config.json and the weights. */
  folder: string;
  /** Local folder with tokenizer.json; null with `--skip-tokenizer-init`. */
  tokenizerFolder: string | null;
  hf: HfConfig;
  /** How hidden states are pooled; null: the model generates. */
  pooling: PoolingConfig | null;
  dtype: FloatDType;
  /** Tokens of prompt and output together. */
  maxModelLen: number;
  /** `--max-model-len auto`: a core may lower maxModelLen to what its KV cache has room for. */
  maxModelLenAuto: boolean;
  /** Of config.json and generation_config.json together, ascending. */
  eosTokenIds: number[];
  defaultSamplingParams: DefaultSamplingParams;
  /** Output tokens that no request may go beyond, because the operator said so: its larger max_tokens is lowered. null: no such limit. */
  maxTokensLimit: number | null;
}

export type LoadConfig = GroupValues<'load'>;

export interface CacheConfig extends Omit<GroupValues<'cache'>, 'kvCacheDtype'> {
  kvCacheDtype: CacheDType;
  /** Bytes for the KV cache of one core; null: the worker decides, from the memory there is. */
  kvCacheMemoryBytes: number | null;
  /** Blocks of each core's KV cache; known when the cores are ready. */
  numGpuBlocks?: number;
}

export type ParallelConfig = GroupValues<'parallel'>;

export interface SchedulerConfig extends GroupValues<'scheduler'> {
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  asyncScheduling: boolean;
}

export interface StructuredOutputsConfig {
  /** auto: llguidance, and XGrammar for what that refuses, or where its library is not there. */
  backend: 'auto' | 'guidance' | 'xgrammar';
  disableAnyWhitespace: boolean;
  disableAdditionalProperties: boolean;
}

export interface DeviceConfig extends GroupValues<'device'> {
  device: Exclude<GroupValues<'device'>['device'], 'auto'>;
  /** Of all cores together; null: the device decides. */
  cpuThreads: number | null;
}

export interface CompilationConfig {
  /** Ascending; empty: no graphs. */
  cudagraphCaptureSizes: readonly number[];
}

export interface FrontendConfig extends GroupValues<'frontend'> {
  /** Jinja text, read from the file if a file was given; null: the model's own. */
  chatTemplate: string | null;
}

export type ObservabilityConfig = GroupValues<'observability'>;
export type LoggingConfig = GroupValues<'logging'>;
export type PluginConfig = GroupValues<'plugins'>;
