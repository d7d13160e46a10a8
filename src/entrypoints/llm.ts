import { beamSearch } from '../engine/beam-search.ts';
import type { PoolingRequestOutput } from '../engine/engine-client.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { LoRARequest as EngineLoRARequest } from '../lora/lora-request.ts';
import type { PoolingPrompt } from '../server/pooling/pooling-requests.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type EngineOptions, engineArgsOf } from './engine-options.ts';
import { EngineOwner } from './engine-owner.ts';
import { showGenerationProgress } from './generation-progress.ts';
import { type LoRAInput, resolveLoras } from './lora-request.ts';
import { OfflineEngine } from './offline-engine.ts';
import {
  type ClassificationRequestOutput,
  type EmbeddingRequestOutput,
  type EmbedOptions,
  PoolingBuilder,
  type PoolingOptions,
  type ScoreOptions,
  type ScoringRequestOutput,
} from './pooling.ts';
import {
  type ChatMessage,
  type ChatOptions,
  type PreparedPrompt,
  type Prompt,
  RequestBuilder,
} from './request-builder.ts';
import { type CompletionOutput, OutputConverter, type RequestOutput } from './request-output.ts';
import { type SamplingOptions, SamplingParams } from './sampling-params.ts';

/** Parameters for all prompts, or one for each of them. */
export type ParamsInput = SamplingParams | SamplingOptions | readonly (SamplingParams | SamplingOptions)[];

export interface GenerateOptions {
  /** A progress bar where standard error is a terminal. Default true. */
  progress?: boolean;
  /** Adapters for all prompts, or one for each of them. */
  loraRequest?: LoRAInput;
}

export interface BeamSearchOptions {
  /** Beams that are kept, and answers to each prompt; twice as many log probabilities must be within `maxLogprobs`. */
  beamWidth: number;
  maxTokens: number;
  /** Exponent of the length by which log probabilities are divided. Default 1. */
  lengthPenalty?: number;
  ignoreEos?: boolean;
  /** Adapters for all prompts, or one for each of them. */
  loraRequest?: LoRAInput;
}

export interface BeamSearchResult {
  /** null for a prompt of token ids. */
  prompt: string | null;
  promptTokenIds: number[];
  /** The best first; token ids include an EOS at the end. */
  sequences: CompletionOutput[];
}

/**
 * A model for many prompts at once, in the process of its caller.
 *
 * @example
 * await using llm = await LLM.create({ model: 'demo' });
 * const [output] = await llm.generate('The capital of France is', { temperature: 0, maxTokens: 8 });
 * console.log(output.outputs[0].text);
 */
export class LLM extends EngineOwner {
  private readonly requests: RequestBuilder;
  private readonly pooling: PoolingBuilder;

  private constructor(engine: OfflineEngine) {
    super(engine);
    this.requests = new RequestBuilder(engine.client);
    this.pooling = new PoolingBuilder(engine.client);
  }

  override async close(): Promise<void> {
    this.requests.close();
    await super.close();
  }

  /** Loads the model. Throws ConfigError for wrong options, LoadError for a model that can't be read, CoreStartupError for one that does not run here. */
  static async create(options: EngineOptions = {}): Promise<LLM> {
    return new LLM(await OfflineEngine.start(await engineArgsOf(options)));
  }

  /** null with `skipTokenizerInit`, and for a model folder without tokenizer.json. */
  get tokenizer(): Tokenizer | null {
    return this.engine.client.tokenizer;
  }

  /** Text to token ids, off this thread when long. */
  async encode(text: string, options: { addSpecialTokens?: boolean } = {}): Promise<Int32Array> {
    return this.engine.client.encode(text, { addSpecialTokens: options.addSpecialTokens ?? true });
  }

  /**
   * Goes on from one prompt or many, in one batch. Without parameters the model's own defaults count.
   *
   * @returns one output a prompt, in their order
   * @throws ValidationError for a prompt or a parameter that the model can't take: nothing is generated then
   */
  async generate(
    prompts: Prompt | readonly Prompt[],
    params?: ParamsInput,
    options: GenerateOptions = {},
  ): Promise<RequestOutput[]> {
    const prepared = await Promise.all(toPrompts(prompts).map((prompt) => this.requests.preparePrompt(prompt)));
    return this.run(prepared, params, options);
  }

  /** Answers one conversation or many, else as {@link generate}. */
  async chat(
    messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    params?: ParamsInput,
    options: ChatOptions & GenerateOptions = {},
  ): Promise<RequestOutput[]> {
    const conversations = toConversations(messages);
    const prepared = await Promise.all(conversations.map((each) => this.requests.prepareChat(each, options)));
    return this.run(prepared, params, options);
  }

  /** The most probable continuations of each prompt, by vLLM's rule. Throws ValidationError. */
  async beamSearch(prompts: Prompt | readonly Prompt[], options: BeamSearchOptions): Promise<BeamSearchResult[]> {
    const prepared = await Promise.all(toPrompts(prompts).map((prompt) => this.requests.preparePrompt(prompt)));
    const checked = await Promise.all(prepared.map((prompt) => this.beamParams(prompt, options)));
    const loras = await resolveLoras(this.engine.adapters, options.loraRequest, prepared.length);
    return Promise.all(prepared.map((prompt, i) => this.searchOne(prompt, checked[i]!, loras[i]!)));
  }

  /**
   * The embedding of each prompt, in their order. For a model that is pooled: `LLM.create({ model, runner: 'pooling' })`, or one that is made for it.
   * Throws ValidationError, as do {@link classify} and {@link score}.
   */
  async embed(prompts: Prompt | readonly Prompt[], options: EmbedOptions = {}): Promise<EmbeddingRequestOutput[]> {
    const prepared = await this.pooling.prepare(toPrompts(prompts), options);
    const outputs = await this.pool(prepared, 'embed', options);
    return outputs.map((output, i) => this.pooling.embeddingOf(output, prepared[i]!));
  }

  /** The probability of each class for each prompt. */
  async classify(
    prompts: Prompt | readonly Prompt[],
    options: PoolingOptions = {},
  ): Promise<ClassificationRequestOutput[]> {
    const prepared = await this.pooling.prepare(toPrompts(prompts), options);
    const outputs = await this.pool(prepared, 'classify', options);
    return outputs.map((output, i) => this.pooling.classesOf(output, prepared[i]!));
  }

  /** How well texts go together: one with each of many, or two lists of equal length pair by pair. */
  async score(
    texts1: string | readonly string[],
    texts2: string | readonly string[],
    options: ScoreOptions = {},
  ): Promise<ScoringRequestOutput[]> {
    const [first, second] = [[texts1].flat(), [texts2].flat()];
    if (first.length !== 1 && first.length !== second.length) {
      throw new ValidationError('Input lengths must be either 1:1, 1:N or N:N', 'texts1');
    }
    const { task, prompts, scoresOf } = await this.pooling.preparePairs(first, second, options);
    const outputs = await this.pool(prompts, task, options);
    return scoresOf(outputs).map(({ score, promptTokens }) => ({ outputs: { score }, numPromptTokens: promptTokens }));
  }

  private async run(
    prompts: readonly PreparedPrompt[],
    params: ParamsInput | undefined,
    { progress: isWatched = true, loraRequest }: GenerateOptions,
  ): Promise<RequestOutput[]> {
    const paramsOf = spread(params, prompts.length);
    const loras = await resolveLoras(this.engine.adapters, loraRequest, prompts.length);
    const requests = await Promise.all(
      prompts.map(async ({ tokenIds }, i) => ({
        promptTokenIds: tokenIds,
        params: await this.requests.resolveParams(paramsOf(i), tokenIds, 'final-only'),
        lora: loras[i]!,
      })),
    );
    const progress = await showGenerationProgress(prompts.length, isWatched);
    try {
      const outputs = await this.engine.generate(requests, (_, output) => {
        if (output.finished) progress.advance();
      });
      return outputs.map((output, i) => new OutputConverter(prompts[i]!.text, false).convert(output));
    } finally {
      progress.stop();
    }
  }

  private async pool(
    prompts: readonly PoolingPrompt[],
    task: 'embed' | 'classify',
    options: EmbedOptions,
  ): Promise<PoolingRequestOutput[]> {
    const params = this.pooling.params(task, options);
    const loras = await resolveLoras(this.engine.adapters, options.loraRequest, prompts.length);
    const requests = prompts.map(({ ids, firstTypeOne }, i) => ({
      promptTokenIds: ids,
      pooling: { ...params, firstTypeOne },
      lora: loras[i]!,
    }));
    const progress = await showGenerationProgress(prompts.length, options.progress ?? true);
    try {
      return await this.engine.pool(requests, () => progress.advance());
    } finally {
      progress.stop();
    }
  }

  private async beamParams({ tokenIds }: PreparedPrompt, options: BeamSearchOptions) {
    const { beamWidth, maxTokens, lengthPenalty = 1, ignoreEos = false } = options;
    // The rules for numbers of answers, tokens and log probabilities are those of sampling.
    const params = new SamplingParams({ n: beamWidth, maxTokens, logprobs: 2 * beamWidth, ignoreEos });
    const resolved = await this.requests.resolveParams(params, tokenIds);
    return {
      beamWidth,
      numLogprobs: 2 * beamWidth,
      maxTokens: resolved.maxTokens,
      lengthPenalty,
      ignoreEos,
      skipSpecialTokens: true,
    };
  }

  private async searchOne(
    { text, tokenIds }: PreparedPrompt,
    params: Awaited<ReturnType<LLM['beamParams']>>,
    lora: EngineLoRARequest | null,
  ): Promise<BeamSearchResult> {
    const output = await beamSearch(tokenIds, params, {
      eosTokenIds: this.engine.config.model.eosTokenIds,
      tokenizer: this.tokenizer,
      step: (requests) => this.engine.generate(requests.map((request) => ({ ...request, lora }))),
    });
    const { prompt, promptTokenIds, outputs } = new OutputConverter(text, false).convert(output);
    return { prompt, promptTokenIds, sequences: outputs };
  }
}

function toPrompts(prompts: Prompt | readonly Prompt[]): readonly Prompt[] {
  if (typeof prompts === 'string' || prompts instanceof Int32Array) return [prompts];
  const isOnePrompt = prompts.length > 0 && typeof prompts[0] === 'number';
  return isOnePrompt ? [prompts as readonly number[]] : (prompts as readonly Prompt[]);
}

function toConversations(
  messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
): readonly (readonly ChatMessage[])[] {
  const areMany = messages.length > 0 && Array.isArray(messages[0]);
  return areMany ? (messages as readonly (readonly ChatMessage[])[]) : [messages as readonly ChatMessage[]];
}

/** The parameters of each prompt by its index. */
function spread(
  params: ParamsInput | undefined,
  numPrompts: number,
): (index: number) => SamplingParams | SamplingOptions | undefined {
  if (!isList(params)) return () => params;
  if (params.length !== numPrompts) {
    throw new ValidationError(
      `The lengths of prompts (${numPrompts}) and sampling parameters (${params.length}) must be the same.`,
      'params',
    );
  }
  return (index) => params[index];
}

function isList(params: ParamsInput | undefined): params is readonly (SamplingParams | SamplingOptions)[] {
  return Array.isArray(params);
}
