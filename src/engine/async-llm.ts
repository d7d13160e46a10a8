import type { BaoConfig } from '../config/bao-config.ts';
import { QueueFullError } from '../errors/queue-full-error.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import { ChatTemplate } from '../tokenizer/chat-template.ts';
import { createTokenizer } from '../tokenizer/create-tokenizer.ts';
import type { ChatTemplateInput, Tokenizer } from '../tokenizer/tokenizer.ts';
import { TokenizerPool } from '../tokenizer/tokenizer-pool.ts';
import { MEMORY_TAGS } from '../worker/memory-tags.ts';
import { CoreConnection, type CoreLinkEnd } from './core-link.ts';
import {
  type EngineClient,
  EngineDeadError,
  type EngineRequest,
  type GenerateRequest,
  type HealthStatus,
  type OutputSink,
  type PoolingRequest,
  type PoolingSink,
  type RequestOutput,
} from './engine-client.ts';
import { InputProcessor } from './input-processor.ts';
import { LoadBalancer } from './load-balancer.ts';
import type { CoreMessage, SchedulerStats, SleepLevel, SleepMode, UtilityResult, WakeTag } from './messages.ts';
import { type EngineObserver, NO_OBSERVER, overrideObserver } from './observer.ts';
import { OutputProcessor } from './output-processor.ts';
import { OutputQueue } from './output-queue.ts';

const RETRY_AFTER_SECONDS = 1;
/** Tokenizing takes a microsecond and a hundred bytes for a character, and others wait behind it. */
const MAX_TEXT_CHARACTERS = 4 * 2 ** 20;
/** More than texts have, so that what could fit the model is never too long to be looked at. */
const MAX_CHARACTERS_PER_TOKEN = 16;

/** What an AsyncLLM reads from the model's folder before it can take requests. */
export interface Preprocessing {
  tokenizer: Tokenizer;
  chatTemplate: ChatTemplate;
  pool: TokenizerPool;
}

/** Tokenizer and chat template of the configured model; null with `--skip-tokenizer-init`. */
export async function loadPreprocessing(config: BaoConfig): Promise<Preprocessing | null> {
  const { tokenizerFolder, tokenizerMode } = config.model;
  if (tokenizerFolder === null) return null;
  const tokenizer = await createTokenizer(tokenizerFolder, { mode: tokenizerMode });
  const chatTemplate = ChatTemplate.fromFolder(tokenizerFolder, {
    tokenizer,
    override: config.frontend.chatTemplate,
    contentFormat: config.frontend.chatTemplateContentFormat,
    defaultKwargs: config.frontend.defaultChatTemplateKwargs,
  });
  const pool = new TokenizerPool(tokenizer, { folder: tokenizerFolder, mode: tokenizerMode });
  return { tokenizer, chatTemplate, pool };
}

/** The engine as a server's front end sees it: requests in, outputs out, over the rings of one or more cores. */
export class AsyncLLM implements EngineClient {
  private readonly connections: CoreConnection[];
  private readonly inputs: InputProcessor;
  private readonly outputs: OutputProcessor;
  private readonly balancer: LoadBalancer;
  private readonly latestStats: SchedulerStats[] = [];
  private readonly utilityCalls = new Map<number, PromiseWithResolvers<string>>();
  private nextCallId = 1;
  private deadReason: string | null = null;

  constructor(
    readonly config: BaoConfig,
    links: readonly CoreLinkEnd[],
    private readonly preprocessing: Preprocessing | null,
    private readonly observer: EngineObserver = NO_OBSERVER,
  ) {
    this.inputs = new InputProcessor(config);
    const keepingStats = overrideObserver(observer, {
      onStats: (coreIndex, stats) => {
        this.latestStats[coreIndex] = stats;
        observer.onStats(coreIndex, stats);
      },
    });
    this.outputs = new OutputProcessor(this.tokenizer, keepingStats);
    this.connections = links.map(
      (link) => new CoreConnection(link, (message) => this.onMessage(link.coreIndex, message)),
    );
    this.balancer = new LoadBalancer(this.connections);
  }

  get tokenizer(): Tokenizer | null {
    return this.preprocessing?.tokenizer ?? null;
  }

  get numUnfinishedRequests(): number {
    return this.outputs.numUnfinishedRequests;
  }

  async encode(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array> {
    const { pool } = this.requirePreprocessing();
    const limit = Math.max(MAX_TEXT_CHARACTERS, this.config.model.maxModelLen * MAX_CHARACTERS_PER_TOKEN);
    if (text.length > limit) {
      throw new ValidationError(`The text has ${text.length} characters; at most ${limit} are tokenized.`, 'prompt');
    }
    return pool.encode(text, options);
  }

  get hasChatTemplate(): boolean {
    return this.preprocessing !== null && this.preprocessing.chatTemplate.source !== null;
  }

  renderChat(input: ChatTemplateInput): string {
    return this.requirePreprocessing().chatTemplate.render(input);
  }

  addRequest(request: GenerateRequest, sink: OutputSink): void {
    this.checkRequestId(request.requestId);
    const coreRequests = this.inputs.process(request);
    this.checkAdmission(coreRequests.length);
    const coreIndex = this.chooseCore(request);
    this.outputs.add(request, coreIndex, coreRequests, sink);
    for (const coreRequest of coreRequests) this.connections[coreIndex]!.send({ type: 'add', request: coreRequest });
  }

  addPoolingRequest(request: PoolingRequest, sink: PoolingSink): void {
    this.checkRequestId(request.requestId);
    const coreRequest = this.inputs.processPooling(request);
    this.checkAdmission(1);
    const coreIndex = this.chooseCore(request);
    this.outputs.addPooling(request, coreIndex, coreRequest, sink);
    this.connections[coreIndex]!.send({ type: 'add', request: coreRequest });
  }

  async *generate(request: GenerateRequest): AsyncGenerator<RequestOutput, void, void> {
    const queue = new OutputQueue();
    this.addRequest(request, queue);
    try {
      yield* queue;
    } finally {
      this.abort(request.requestId);
    }
  }

  abort(requestId: string): void {
    const removed = this.outputs.remove(requestId);
    if (removed === null || removed.handles.length === 0) return;
    this.connections[removed.coreIndex]!.send({ type: 'abort', abort: { handles: removed.handles } });
  }

  health(): HealthStatus {
    return this.deadReason === null ? { healthy: true } : { healthy: false, reason: this.deadReason };
  }

  async resetPrefixCache(resetRunningRequests = false): Promise<boolean> {
    const results = await this.callAll('resetPrefixCache', [resetRunningRequests]);
    return results.every((result) => result === true);
  }

  async addLora(request: LoRARequest): Promise<void> {
    try {
      const problems = await this.callAll('addLora', [request]);
      const problem = problems.find((text) => text !== null);
      if (problem !== undefined) throw new ValidationError(String(problem), 'lora_path', request.path);
    } catch (error) {
      await this.removeLora(request.id).catch(() => {});
      throw error;
    }
  }

  async removeLora(id: number): Promise<void> {
    await this.callAll('removeLora', [id]);
  }

  async sleep(level: SleepLevel, mode: SleepMode): Promise<void> {
    if (level > 0 && !this.config.model.enableSleepMode) {
      throw new ValidationError(
        `Sleep level ${level} needs --enable-sleep-mode (enableSleepMode); level 0, which frees nothing, does not.`,
        'level',
        level,
      );
    }
    await this.callAll('sleep', [level, mode]);
  }

  async wakeUp(tags: readonly WakeTag[] = [...MEMORY_TAGS, 'scheduling']): Promise<void> {
    await this.callAll('wakeUp', [tags]);
  }

  async isSleeping(): Promise<boolean> {
    return (await this.callAll('isSleeping')).includes(true);
  }

  stats(): SchedulerStats[] {
    return this.latestStats;
  }

  /** Fails what is running and everything that comes, with this reason. */
  markDead(reason: string): void {
    if (this.deadReason !== null) return;
    this.deadReason = reason;
    const error = new EngineDeadError(reason);
    this.outputs.failAll(error);
    for (const call of this.utilityCalls.values()) call.reject(error);
    this.utilityCalls.clear();
  }

  /** Fails what is running, e.g. because the server stops. */
  failAll(error: Error): void {
    this.outputs.failAll(error);
  }

  /** Tells the cores to stop when they are done with the present step. */
  async shutdownCores(): Promise<void> {
    await Promise.all(this.connections.map((each) => this.callUtility(each, 'shutdown').catch(() => {})));
  }

  close(): void {
    for (const connection of this.connections) connection.close();
    this.preprocessing?.pool.close();
  }

  private onMessage(coreIndex: number, message: CoreMessage): void {
    if (message.type === 'utility-result') {
      this.onUtilityResult(message.result);
      return;
    }
    const { toAbort } = this.outputs.process(coreIndex, message.outputs);
    if (toAbort.length > 0) this.connections[coreIndex]!.send({ type: 'abort', abort: { handles: toAbort } });
  }

  private checkRequestId(requestId: string): void {
    if (this.deadReason !== null) throw new EngineDeadError(this.deadReason);
    if (this.outputs.has(requestId)) {
      throw new ValidationError(`Request id ${requestId} already running.`, 'request_id', requestId);
    }
  }

  private chooseCore(request: EngineRequest): number {
    const rank = request.dataParallelRank ?? null;
    if (rank === null) return this.balancer.choose(request.promptTokenIds, request.lora?.id);
    if (!(rank >= 0 && rank < this.connections.length)) {
      throw new ValidationError(
        `data_parallel_rank ${rank} is out of range [0, ${this.connections.length}).`,
        'data_parallel_rank',
        rank,
      );
    }
    return rank;
  }

  /** vLLM's rules: sequences in flight by number, those without a token yet by the tokens of their prompts. */
  private checkAdmission(numNew: number): void {
    const { maxNumQueuedReqs, maxNumQueuedTokens } = this.config.scheduler;
    if (maxNumQueuedReqs !== null) {
      let inFlight = 0;
      for (const { status, numUnreceived } of this.connections) {
        inFlight += status.numRunning + status.numWaiting + numUnreceived;
      }
      if (inFlight + numNew > maxNumQueuedReqs) {
        this.reject('queue_full', `${inFlight} requests in flight, the limit is ${maxNumQueuedReqs}`);
      }
    }
    const { numQueuedTokens } = this.outputs;
    if (maxNumQueuedTokens !== null && numQueuedTokens >= maxNumQueuedTokens) {
      this.reject('queued_tokens', `a backlog of ${numQueuedTokens} prompt tokens, the limit is ${maxNumQueuedTokens}`);
    }
  }

  private reject(reason: string, found: string): never {
    this.observer.onRejected(reason);
    throw new QueueFullError(`The server is busy: ${found}. Please try again later.`, RETRY_AFTER_SECONDS);
  }

  private callAll(method: string, args: unknown[] = []): Promise<unknown[]> {
    return Promise.all(this.connections.map((connection) => this.callUtility(connection, method, args)));
  }

  private callUtility(connection: CoreConnection, method: string, args: unknown[] = []): Promise<unknown> {
    if (this.deadReason !== null) return Promise.reject(new EngineDeadError(this.deadReason));
    const callId = this.nextCallId++;
    const call = Promise.withResolvers<string>();
    this.utilityCalls.set(callId, call);
    connection.send({ type: 'utility', call: { callId, method, argsJson: JSON.stringify(args) } });
    return call.promise.then((json) => JSON.parse(json) as unknown);
  }

  private onUtilityResult(result: UtilityResult): void {
    const call = this.utilityCalls.get(result.callId);
    this.utilityCalls.delete(result.callId);
    if (result.error === null) call?.resolve(result.resultJson);
    else call?.reject(new Error(result.error));
  }

  private requirePreprocessing(): Preprocessing {
    if (this.preprocessing === null) {
      throw new ValidationError(
        'The server was started with --skip-tokenizer-init: give the prompt as token ids (`prompt` of /v1/completions as a list of integers).',
        'prompt',
      );
    }
    return this.preprocessing;
  }
}
