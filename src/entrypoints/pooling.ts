import type { EngineClient, PoolingRequestOutput } from '../engine/engine-client.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import {
  type PoolingOrigin,
  type PoolingPrompt,
  poolingConfigOf,
  poolingParams,
  preparePrompts,
} from '../server/pooling/pooling-requests.ts';
import { type PairScoring, preparePairs } from '../server/pooling/score-pairs.ts';
import type { PoolingText } from '../server/protocol/pooling-fields.ts';
import type { LoRAInput, LoRARequest } from './lora-request.ts';
import type { Prompt } from './request-builder.ts';

/** How texts are pooled; what is left out is as the model's files and the engine's options say. */
export interface PoolingOptions {
  /** Tokens to keep of a text that is longer, special tokens included; -1: as many as the model takes. Default: a longer text is refused. */
  truncatePromptTokens?: number;
  /** From which side they are cut off. */
  truncationSide?: 'left' | 'right';
  /** Make embeddings length 1, logits probabilities. */
  useActivation?: boolean;
  /** An adapter for all prompts, or one for each. */
  loraRequest?: LoRAInput;
  /** A progress bar where standard error is a terminal. Default true. */
  progress?: boolean;
}

export interface ScoreOptions extends Omit<PoolingOptions, 'loraRequest'> {
  /** An adapter for all pairs. */
  loraRequest?: LoRARequest | null;
  /** Variables of the score template (`chatTemplate`), such as `instruction`. */
  chatTemplateKwargs?: Record<string, unknown>;
}

export interface EmbedOptions extends PoolingOptions {
  /** Elements to keep, of a model that was trained for it (Matryoshka). */
  dimensions?: number;
}

interface PooledOutput<Outputs> {
  /** null for a prompt of token ids. */
  prompt: string | null;
  promptTokenIds: number[];
  outputs: Outputs;
  /** Prompt tokens that were found in the prefix cache. */
  numCachedTokens: number;
}

/** vLLM's EmbeddingRequestOutput. */
export type EmbeddingRequestOutput = PooledOutput<{ embedding: number[] }>;
/** vLLM's ClassificationRequestOutput, with the name of the most probable class. */
export type ClassificationRequestOutput = PooledOutput<{ probs: number[]; label: string | null }>;

/** vLLM's ScoringRequestOutput. */
export interface ScoringRequestOutput {
  outputs: { score: number };
  /** Of both texts together. */
  numPromptTokens: number;
}

/** Requests of the programming interface as the engine takes them, by the API's rules. All its methods throw ValidationError. */
export class PoolingBuilder {
  constructor(private readonly engine: EngineClient) {}

  prepare(prompts: readonly Prompt[], options: PoolingOptions): Promise<PoolingPrompt[]> {
    const texts = prompts.map((prompt): PoolingText => (typeof prompt === 'string' ? prompt : [...prompt]));
    return preparePrompts(this.context, { kind: 'texts', texts, addSpecialTokens: true }, originOf(options));
  }

  preparePairs(texts1: readonly string[], texts2: readonly string[], options: ScoreOptions): Promise<PairScoring> {
    const asPair = { max_tokens_per_query: 0, max_tokens_per_doc: 0, chat_template_kwargs: options.chatTemplateKwargs };
    return preparePairs(this.context, { texts1, texts2 }, { ...originOf(options), ...asPair });
  }

  params(task: 'embed' | 'classify', options: EmbedOptions): Omit<PoolingParams, 'firstTypeOne'> {
    return poolingParams(this.context, task, originOf(options), options.dimensions ?? null);
  }

  embeddingOf(output: PoolingRequestOutput, { text }: PoolingPrompt): EmbeddingRequestOutput {
    return { ...commonOf(output, text), outputs: { embedding: [...output.output.values] } };
  }

  classesOf(output: PoolingRequestOutput, { text }: PoolingPrompt): ClassificationRequestOutput {
    const probs = [...output.output.values];
    const { labels } = poolingConfigOf(this.context);
    const label = labels[probs.indexOf(Math.max(...probs))] ?? null;
    return { ...commonOf(output, text), outputs: { probs, label } };
  }

  private get context() {
    return { engine: this.engine, config: this.engine.config };
  }
}

function originOf({ truncatePromptTokens, truncationSide, useActivation }: PoolingOptions): PoolingOrigin {
  return {
    truncate_prompt_tokens: truncatePromptTokens,
    truncation_side: truncationSide,
    use_activation: useActivation,
  };
}

function commonOf({ promptTokenIds, numCachedTokens }: PoolingRequestOutput, prompt: string | null) {
  return { prompt, promptTokenIds: [...promptTokenIds], numCachedTokens };
}
