/** The package's programming interface: models without a server. */
export { ConfigError, UsageError } from './config/config-error.ts';
export { EngineDeadError, type HealthStatus } from './engine/engine-client.ts';
export type { SleepLevel, SleepMode, WakeTag } from './engine/messages.ts';
export { AsyncLLM, type StreamOptions } from './entrypoints/async-llm.ts';
export type { EngineOptions } from './entrypoints/engine-options.ts';
export {
  type BeamSearchOptions,
  type BeamSearchResult,
  type GenerateOptions,
  LLM,
  type ParamsInput,
} from './entrypoints/llm.ts';
export { type LoRAInput, LoRARequest, type LoRARequestOptions } from './entrypoints/lora-request.ts';
export type {
  ClassificationRequestOutput,
  EmbeddingRequestOutput,
  EmbedOptions,
  PoolingOptions,
  ScoreOptions,
  ScoringRequestOutput,
} from './entrypoints/pooling.ts';
export type { ChatMessage, ChatOptions, ChatTool, Prompt } from './entrypoints/request-builder.ts';
export type { CompletionOutput, Logprob, Logprobs, RequestOutput } from './entrypoints/request-output.ts';
export { type SamplingOptions, SamplingParams, type StructuredOutputsOptions } from './entrypoints/sampling-params.ts';
export { QueueFullError } from './errors/queue-full-error.ts';
export { ValidationError } from './errors/validation-error.ts';
export { LoadError } from './loader/load-error.ts';
export type { BaoPlugin, PluginContext } from './plugins/plugins.ts';
export type { BatchedRequest, LogitsProcessor, RequestLogitsProcessor } from './sampling/logits-processor.ts';
export type { Tokenizer } from './tokenizer/tokenizer.ts';
