import { join } from 'node:path';
import type { BaoConfig } from '../../src/config/bao-config.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import type {
  CompletionOutput,
  EngineClient,
  GenerateRequest,
  HealthStatus,
  OutputSink,
  PoolingRequest,
  PoolingSink,
  PositionLogprobs,
  RequestOutput,
} from '../../src/engine/engine-client.ts';
import type { SchedulerStats, SleepLevel, SleepMode, WakeTag } from '../../src/engine/messages.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';
import type { LoRARequest } from '../../src/lora/lora-request.ts';
import type { FinishReason } from '../../src/scheduler/finish-reason.ts';
import { ChatTemplate } from '../../src/tokenizer/chat-template.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { OutputText } from '../../src/tokenizer/output-text.ts';
import type { ChatTemplateInput, Tokenizer } from '../../src/tokenizer/tokenizer.ts';

const DEMO = join(import.meta.dir, '../../models/demo');

/** What a fake model says: tokens in order, and what it thinks of each position. */
export interface Script {
  tokenIds: number[];
  /** Per output token, the token itself first; by default the token alone, certain. */
  logprobs?: PositionLogprobs[];
  promptLogprobs?: PositionLogprobs[];
  numCachedTokens?: number;
}

export interface FakeEngineOptions {
  flags?: Partial<FlagValues>;
  /** By default tokens that follow from the prompt's sum, never EOS. */
  script?(request: GenerateRequest, index: number): Script;
  /** By default four numbers that follow from the ids; an error is the request's end. */
  pool?(request: PoolingRequest): number[] | Error;
  /** Outputs come only by `step()`. */
  manual?: boolean;
}

const demo = loadDemo();

async function loadDemo(): Promise<{ tokenizer: Tokenizer; template: ChatTemplate }> {
  const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
  return { tokenizer, template: ChatTemplate.fromFolder(DEMO, { tokenizer }) };
}

/** An engine without a model: the demo's real configuration, tokenizer and chat template, and tokens from a script. */
export class FakeEngine implements EngineClient {
  /** Every request that was accepted, in order. */
  readonly requests: GenerateRequest[] = [];
  /** Those that are pooled. */
  readonly poolingRequests: PoolingRequest[] = [];
  readonly aborted: string[] = [];
  /** Adapters that were added and not removed, by id. */
  readonly loras = new Map<number, LoRARequest>();
  status: HealthStatus = { healthy: true };
  /** Thrown by the next requests. */
  refusal: Error | null = null;
  readonly #running = new Map<string, RunningRequest>();
  readonly #pooling = new Set<string>();

  private constructor(
    readonly config: BaoConfig,
    readonly tokenizer: Tokenizer | null,
    private readonly template: ChatTemplate,
    private readonly options: FakeEngineOptions,
  ) {}

  static async create(options: FakeEngineOptions = {}): Promise<FakeEngine> {
    const { tokenizer, template } = await demo;
    const config = await new EngineArgs({
      model: DEMO,
      servedModelName: ['demo'],
      generationConfig: 'vllm',
      disableUvicornAccessLog: true,
      ...options.flags,
    }).createEngineConfig();
    return new FakeEngine(config, config.model.skipTokenizerInit ? null : tokenizer, template, options);
  }

  async encode(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array> {
    if (this.tokenizer === null) throw new ValidationError('There is no tokenizer.');
    return this.tokenizer.encode(text, options);
  }

  readonly hasChatTemplate = true;

  renderChat(input: ChatTemplateInput): string {
    return this.template.render(input);
  }

  addRequest(request: GenerateRequest, sink: OutputSink): void {
    if (this.refusal !== null) throw this.refusal;
    this.requests.push(request);
    const script = this.options.script ?? defaultScript;
    this.#running.set(
      request.requestId,
      new RunningRequest(request, sink, this.tokenizer, this.config.model.eosTokenIds, script),
    );
    if (!this.options.manual) queueMicrotask(() => this.#run(request.requestId));
  }

  addPoolingRequest(request: PoolingRequest, sink: PoolingSink): void {
    if (this.refusal !== null) throw this.refusal;
    this.poolingRequests.push(request);
    const { requestId, promptTokenIds } = request;
    this.#pooling.add(requestId);
    if (this.options.manual) return;
    const pooled = (this.options.pool ?? defaultPool)(request);
    queueMicrotask(() => {
      if (!this.#pooling.delete(requestId)) return;
      if (pooled instanceof Error) return sink.onError(pooled);
      const values = Float32Array.from(pooled);
      const output = { isTokenwise: false, numRows: 1, width: values.length, values };
      sink.onOutput({ requestId, promptTokenIds, output, numCachedTokens: 0 });
    });
  }

  #run(requestId: string): void {
    while (this.#running.has(requestId)) this.#stepRequest(requestId);
  }

  /** One token for every running request. */
  step(): void {
    for (const id of [...this.#running.keys()]) this.#stepRequest(id);
  }

  #stepRequest(id: string): void {
    const request = this.#running.get(id);
    if (request?.step() === true) this.#running.delete(id);
  }

  /** All running requests fail. */
  fail(error: Error): void {
    const running = [...this.#running.values()];
    this.#running.clear();
    for (const { sink } of running) sink.onError(error);
  }

  async *generate(): AsyncGenerator<RequestOutput, void, void> {
    yield* [];
    throw new Error('The server uses addRequest.');
  }

  abort(requestId: string): void {
    if (this.#running.delete(requestId) || this.#pooling.delete(requestId)) this.aborted.push(requestId);
  }

  health(): HealthStatus {
    return this.status;
  }

  async addLora(request: LoRARequest): Promise<void> {
    if (this.refusal !== null) throw this.refusal;
    this.loras.set(request.id, request);
  }

  async removeLora(id: number): Promise<void> {
    this.loras.delete(id);
  }

  /** What utility calls were made, with their arguments. */
  readonly calls: [name: string, ...args: unknown[]][] = [];
  /** Whether blocks of the prefix cache are in use. */
  cacheInUse = false;
  #sleeps = false;

  async resetPrefixCache(resetRunningRequests = false): Promise<boolean> {
    this.calls.push(['resetPrefixCache', resetRunningRequests]);
    return resetRunningRequests || !this.cacheInUse;
  }

  async sleep(level: SleepLevel, mode: SleepMode): Promise<void> {
    this.calls.push(['sleep', level, mode]);
    this.#sleeps = true;
  }

  async wakeUp(tags?: readonly WakeTag[]): Promise<void> {
    this.calls.push(['wakeUp', tags]);
    this.#sleeps = false;
  }

  async isSleeping(): Promise<boolean> {
    return this.#sleeps;
  }

  stats(): SchedulerStats[] {
    return [];
  }

  get numUnfinishedRequests(): number {
    return this.#running.size;
  }
}

class RunningRequest {
  readonly #choices: FakeSequence[];
  readonly #scripts: Script[];

  constructor(
    readonly request: GenerateRequest,
    readonly sink: OutputSink,
    private readonly tokenizer: Tokenizer | null,
    eosTokenIds: number[],
    script: (request: GenerateRequest, index: number) => Script,
  ) {
    this.#scripts = Array.from({ length: request.params.n }, (_, i) => script(request, i));
    this.#choices = this.#scripts.map((item, i) => new FakeSequence(request, i, tokenizer, eosTokenIds, item));
  }

  /** @returns whether the request has finished */
  step(): boolean {
    const deltas = this.#choices.filter((choice) => choice.finishReason === null).map((choice) => choice.step());
    const finished = this.#choices.every((choice) => choice.finishReason !== null);
    const isFinalOnly = this.request.params.outputKind === 'final-only';
    if (isFinalOnly && !finished) return false;
    const [first] = this.#scripts;
    this.sink.onOutput({
      requestId: this.request.requestId,
      promptTokenIds: this.request.promptTokenIds,
      promptLogprobs:
        this.request.params.promptLogprobs === null ? null : (first?.promptLogprobs ?? this.#certainPrompt()),
      outputs: isFinalOnly ? this.#choices.map((choice) => choice.whole()) : deltas,
      finished,
      numCachedTokens: first?.numCachedTokens ?? 0,
    });
    return finished;
  }

  #certainPrompt(): PositionLogprobs[] {
    return [...this.request.promptTokenIds].map((id, i) => (i === 0 ? null : [certainToken(id, this.tokenizer)]));
  }
}

class FakeSequence {
  finishReason: FinishReason | null = null;
  #stopReason: string | number | null = null;
  #text = '';
  #position = 0;
  readonly #tokenIds: number[] = [];
  readonly #outputText: OutputText | null;

  constructor(
    private readonly request: GenerateRequest,
    private readonly index: number,
    private readonly tokenizer: Tokenizer | null,
    private readonly eosTokenIds: number[],
    private readonly script: Script,
  ) {
    this.#outputText = tokenizer === null ? null : new OutputText(tokenizer, request.params, request.promptTokenIds);
  }

  step(): CompletionOutput {
    const { params } = this.request;
    const tokenId = this.script.tokenIds[this.#position++] ?? this.eosTokenIds[0]!;
    this.#tokenIds.push(tokenId);
    const isStopToken = params.stopTokenIds.includes(tokenId);
    const isEos = !params.ignoreEos && this.eosTokenIds.includes(tokenId);
    const mayEnd = this.#tokenIds.length > params.minTokens;
    const endedByToken = mayEnd && (isEos || isStopToken);
    const pushed = this.#outputText?.push([tokenId], endedByToken) ?? { text: '', stop: null };
    if (pushed.stop !== null) this.#end('stop', pushed.stop);
    else if (endedByToken) this.#end('stop', isStopToken ? tokenId : null);
    else if (this.#tokenIds.length >= params.maxTokens) this.#end('length', null);
    const held = this.finishReason !== null && pushed.stop === null ? (this.#outputText?.finish() ?? '') : '';
    const text = pushed.text + held;
    this.#text += text;
    return this.#output(text, [tokenId], this.#tokenIds.length - 1);
  }

  whole(): CompletionOutput {
    return this.#output(this.#text, [...this.#tokenIds], 0);
  }

  #end(reason: FinishReason, stopReason: string | number | null): void {
    this.finishReason = reason;
    this.#stopReason = stopReason;
  }

  #output(text: string, tokenIds: number[], from: number): CompletionOutput {
    const logprobs = tokenIds.map((id, i) => this.script.logprobs?.[from + i] ?? [certainToken(id, this.tokenizer)]);
    return {
      index: this.index,
      text,
      tokenIds,
      logprobs: this.request.params.logprobs === null ? null : logprobs,
      finishReason: this.finishReason,
      stopReason: this.#stopReason,
    };
  }
}

function certainToken(tokenId: number, tokenizer: Tokenizer | null) {
  const decodedToken = tokenizer?.decode([tokenId], { skipSpecialTokens: false }) ?? '';
  return { tokenId, logprob: 0, rank: 1, decodedToken };
}

function defaultPool({ promptTokenIds }: PoolingRequest): number[] {
  const sum = promptTokenIds.reduce((total, id) => total + id, 0);
  return [sum, promptTokenIds.length, -1, 0.5];
}

function defaultScript(request: GenerateRequest, index: number): Script {
  const start = request.promptTokenIds.reduce((sum, id) => sum + id, index);
  const length = Math.min(request.params.maxTokens, 64);
  return { tokenIds: Array.from({ length }, (_, i) => 300 + ((start + i * 7) % 1000)) };
}
