import type { HealthStatus } from '../engine/engine-client.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type EngineOptions, engineArgsOf } from './engine-options.ts';
import { EngineOwner } from './engine-owner.ts';
import { type LoRARequest, resolveLora } from './lora-request.ts';
import { OfflineEngine } from './offline-engine.ts';
import {
  type ChatMessage,
  type ChatOptions,
  type PreparedPrompt,
  type Prompt,
  RequestBuilder,
} from './request-builder.ts';
import { OutputConverter, type RequestOutput } from './request-output.ts';
import type { SamplingOptions, SamplingParams } from './sampling-params.ts';

export interface StreamOptions {
  /** For `abort`; must be of no other running request. By default one is made. */
  requestId?: string;
  /** Aborts the request: the stream ends without a finished output. */
  signal?: AbortSignal;
  /** An adapter to generate with. */
  loraRequest?: LoRARequest | null;
}

/**
 * A model for a program that has requests coming and going, in its own process. Requests run together in one batch.
 *
 * @example
 * await using llm = await AsyncLLM.fromEngineArgs({ model: 'demo' });
 * for await (const output of llm.generate('Once upon', { maxTokens: 64, outputKind: 'delta' })) {
 *   process.stdout.write(output.outputs[0].text);
 * }
 */
export class AsyncLLM extends EngineOwner {
  private readonly requests: RequestBuilder;
  private readonly stops = new Map<string, () => void>();
  private numRequests = 0;

  private constructor(engine: OfflineEngine) {
    super(engine);
    this.requests = new RequestBuilder(engine.client);
  }

  /** Loads the model. Throws ConfigError for wrong options, LoadError for a model that can't be read, CoreStartupError for one that does not run here. */
  static async fromEngineArgs(options: EngineOptions = {}): Promise<AsyncLLM> {
    return new AsyncLLM(await OfflineEngine.start(await engineArgsOf(options)));
  }

  /** null with `skipTokenizerInit`, and for a model folder without tokenizer.json. */
  get tokenizer(): Tokenizer | null {
    return this.engine.client.tokenizer;
  }

  /**
   * Goes on from a prompt; outputs come as they are made, with all text so far unless `outputKind` says otherwise. Leaving the loop aborts the request.
   * Throws ValidationError, EngineDeadError.
   */
  async *generate(
    prompt: Prompt,
    params?: SamplingParams | SamplingOptions,
    options: StreamOptions = {},
  ): AsyncGenerator<RequestOutput, void, void> {
    yield* this.stream(await this.requests.preparePrompt(prompt), params, options);
  }

  /** Answers a conversation, else as {@link generate}. */
  async *chat(
    messages: readonly ChatMessage[],
    params?: SamplingParams | SamplingOptions,
    options: ChatOptions & StreamOptions = {},
  ): AsyncGenerator<RequestOutput, void, void> {
    yield* this.stream(await this.requests.prepareChat(messages, options), params, options);
  }

  /** Ends a request and its stream. Unknown ids are ignored. */
  abort(requestId: string): void {
    this.stops.get(requestId)?.();
  }

  /** Loads an adapter before its first request; vLLM's add_lora. Throws ValidationError for one that can't be loaded. */
  async addLora(loraRequest: LoRARequest): Promise<void> {
    await resolveLora(this.engine.adapters, loraRequest);
  }

  /** Forgets an adapter; requests that have it end with it. Throws ValidationError for a name that is not loaded. */
  async removeLora(loraName: string): Promise<void> {
    await this.engine.adapters.unload(loraName);
  }

  health(): HealthStatus {
    return this.engine.client.health();
  }

  override async close(): Promise<void> {
    for (const stop of this.stops.values()) stop();
    this.requests.close();
    await super.close();
  }

  private async *stream(
    { text, tokenIds }: PreparedPrompt,
    params: SamplingParams | SamplingOptions | undefined,
    { requestId = `request-${this.numRequests++}`, signal, loraRequest }: StreamOptions,
  ): AsyncGenerator<RequestOutput, void, void> {
    const resolved = await this.requests.resolveParams(params, tokenIds);
    const lora = await resolveLora(this.engine.adapters, loraRequest);
    if (signal?.aborted) return;
    if (this.stops.has(requestId)) throw new ValidationError(`Request id ${requestId} already running.`, 'request_id');
    const outputs = this.engine.client.generate({ requestId, promptTokenIds: tokenIds, params: resolved, lora });
    const stopped = Promise.withResolvers<IteratorResult<never, void>>();
    const stop = () => stopped.resolve({ done: true, value: undefined });
    this.stops.set(requestId, stop);
    signal?.addEventListener('abort', stop);
    const converter = new OutputConverter(text, resolved.outputKind === 'delta');
    try {
      for (;;) {
        const next = await Promise.race([stopped.promise, outputs.next()]);
        if (next.done) return;
        yield converter.convert(next.value);
      }
    } finally {
      signal?.removeEventListener('abort', stop);
      this.stops.delete(requestId);
      this.engine.client.abort(requestId);
    }
  }
}
