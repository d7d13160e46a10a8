import type { Executor } from '../../executor/executor.ts';
import { Request } from '../../scheduler/request.ts';
import type { RequestUpdate, SchedulerCounters, SchedulerInterface } from '../../scheduler/scheduler-interface.ts';
import type { SchedulerOutput } from '../../scheduler/scheduler-output.ts';
import type { StructuredOutputManager } from '../../structured-output/structured-output-manager.ts';
import type { PendingStep } from '../../worker/pending-step.ts';
import { wallClockMs } from '../clock.ts';
import type { ClientConnection } from '../core-link.ts';
import { type CoreStatus, MAX_IDLE_MS } from '../core-status.ts';
import type { ClientMessage, EngineCoreOutput, EngineCoreRequest, SchedulerStats } from '../messages.ts';
import { ConstrainedRequests } from './constrained-requests.ts';
import type { NgramDrafter } from './ngram-drafter.ts';
import { SeedSequence } from './seed-sequence.ts';
import { SleepControl } from './sleep-control.ts';
import type { StepLog } from './step-log.ts';
import type { StepWork } from './step-work.ts';
import { UtilityCalls } from './utility-calls.ts';

/** Counters go to the client at most this often. */
const STATS_INTERVAL_MS = 250;
/** While a client's ring is full. */
const FLUSH_SLEEP_MS = 1;
/** While nothing runs and grammars or masks are made. */
const GRAMMAR_SLEEP_MS = 1;

export interface EngineCoreOptions {
  /** Steps that may be enqueued at once: 2 with async scheduling, else 1. */
  maxInFlight: number;
  /** Seed of the seeds of requests that bring none. */
  seed: number;
  /** Default: no step is told of. */
  stepLog?: StepLog;
  /** Default null: what steps take is not estimated. */
  stepWork?: StepWork | null;
  /** Default: requests with a grammar end with an error. */
  structuredOutputs?: StructuredOutputManager;
  /** Guesses by what stands in the texts. Default: nobody does, unless the executor has a draft model. */
  ngramDrafter?: NgramDrafter | null;
}

const NOTHING_NEW = {
  newTokenIds: [],
  newLogprobs: null,
  newPromptLogprobs: null,
  poolerOutput: null,
  stopReason: null,
  failure: null,
  isFirst: true,
} satisfies Partial<RequestUpdate>;

interface StepInFlight {
  scheduled: SchedulerOutput;
  pending: PendingStep;
  /** Milliseconds, monotonic. */
  enqueuedMs: number;
}

/** The busy loop of one core: read rings, schedule, execute, update, write rings. Never waits for a client. */
export class EngineCore {
  private readonly inFlight: StepInFlight[] = [];
  /** By client, by handle: the key of a live request. */
  private readonly keys: Map<number, number>[];
  private readonly seeds: SeedSequence;
  private readonly constrained: ConstrainedRequests;
  private readonly sleepControl: SleepControl;
  private readonly utilityCalls: UtilityCalls;
  private nextKey = 1;
  private stopping = false;
  /** Released while no step was due; goes along with the next one. */
  private releasedKeys: number[] = [];
  private readonly firstScheduledMs = new Map<number, number>();
  private numSteps = 0;
  private numScheduledTokens = 0;
  /** Of the turns that have ended. */
  private stepMs = 0;
  private deviceMs = 0;
  /** When the turn under way began, monotonic; null between turns. */
  private turnStartedMs: number | null = null;
  private statsSentMs = 0;
  /** When the last step's results came, monotonic. */
  private finishedMs = 0;

  constructor(
    private readonly executor: Executor,
    private readonly scheduler: SchedulerInterface,
    private readonly connections: readonly ClientConnection[],
    private readonly status: CoreStatus,
    private readonly options: EngineCoreOptions,
  ) {
    this.keys = connections.map(() => new Map());
    this.seeds = new SeedSequence(options.seed);
    this.constrained = new ConstrainedRequests(scheduler, options.structuredOutputs ?? null, (requests, failure) =>
      this.sendOutputs(
        requests.map((request) => ({
          ...NOTHING_NEW,
          request,
          finishReason: 'error',
          failure,
          isFirst: !request.hasOutput,
        })),
        0,
      ),
    );
    this.sleepControl = new SleepControl(executor, scheduler, () => this.abortAll());
    this.utilityCalls = new UtilityCalls(executor, scheduler, this.sleepControl, {
      stats: () => this.stats(),
      stop: () => {
        this.stopping = true;
      },
    });
  }

  /** Runs until a client asks for `shutdown`. An error that escapes means that the core can't go on. */
  async run(): Promise<void> {
    while (!this.stopping) {
      this.status.countLoopTurn();
      this.receive();
      this.constrained.admit();
      if (this.inFlight.length === 0 && this.sleepControl.isDue) {
        await this.changeSleep();
      } else if (this.scheduler.canSchedule() || this.inFlight.length > 0) {
        this.status.state = 'busy';
        this.turn();
      } else if (!this.stopping) {
        this.idle();
      }
      this.flush();
    }
  }

  shutdown(): void {
    for (const { pending } of this.inFlight) pending.wait();
    this.constrained.close();
    this.executor.shutdown();
    for (const connection of this.connections) connection.close();
  }

  /** Loading weights takes long, and is no step that hangs: the core counts as starting. */
  private async changeSleep(): Promise<void> {
    this.status.state = 'starting';
    await this.sleepControl.proceed();
    this.publishLoad();
    this.sendStats();
  }

  private idle(): void {
    if (this.statsSentMs !== Number.POSITIVE_INFINITY) {
      this.sendStats();
      // Once is enough until something comes.
      this.statsSentMs = Number.POSITIVE_INFINITY;
    }
    this.status.state = this.sleepControl.level === null ? 'idle' : 'sleeping';
    const flushing = this.connections.some((connection) => connection.hasPendingOutput);
    const compiling = this.constrained.numWaiting > 0;
    const sleepMs = flushing ? FLUSH_SLEEP_MS : compiling ? GRAMMAR_SLEEP_MS : MAX_IDLE_MS;
    this.status.sleep(sleepMs, () => this.connections.some((connection) => connection.hasInput));
  }

  /** Enqueues what may be enqueued, then finishes the oldest step. */
  private turn(): void {
    const started = performance.now();
    this.turnStartedMs = started;
    let isHolding = false;
    while (this.inFlight.length < this.options.maxInFlight && this.scheduler.canSchedule()) {
      const held = this.constrained.settle();
      isHolding = held.size > 0;
      const scheduled = this.scheduler.schedule(held);
      this.releasedKeys.push(...scheduled.releasedKeys);
      if (scheduled.totalNumScheduledTokens === 0) break;
      scheduled.releasedKeys = this.releasedKeys;
      this.releasedKeys = [];
      scheduled.grammarBitmask = this.constrained.bitmask(scheduled);
      this.noteFirstScheduled(scheduled);
      // Nobody's tokens shall wait for these logits.
      if (scheduled.waitsForLogits) while (this.finishOldest()) this.flush();
      this.inFlight.push({ scheduled, pending: this.executor.execute(scheduled), enqueuedMs: performance.now() });
    }
    const hasFinished = this.finishOldest();
    this.stepMs += performance.now() - started;
    this.turnStartedMs = null;
    if (!hasFinished && isHolding) this.sleepForGrammars();
  }

  /** All that run wait for their masks. */
  private sleepForGrammars(): void {
    this.status.sleep(GRAMMAR_SLEEP_MS, () => this.connections.some((connection) => connection.hasInput));
  }

  /** False when no step is in flight. */
  private finishOldest(): boolean {
    const step = this.inFlight.shift();
    if (step === undefined) return false;
    this.finish(step);
    return true;
  }

  private flush(): void {
    for (const connection of this.connections) connection.flush();
  }

  private finish({ scheduled, pending, enqueuedMs }: StepInFlight): void {
    const waited = performance.now();
    const result = pending.wait();
    const now = performance.now();
    this.deviceMs += now - waited;
    this.options.stepLog?.note(scheduled, now - Math.max(enqueuedMs, this.finishedMs), () => this.scheduler.stats());
    this.finishedMs = now;
    this.numSteps++;
    this.numScheduledTokens += scheduled.totalNumScheduledTokens;
    this.options.stepWork?.add(scheduled);
    this.status.addProgress(scheduled.totalNumScheduledTokens);
    const updates = this.scheduler.updateFromOutput(scheduled, result);
    for (const update of updates) this.constrained.follow(update);
    const drafts = result.draftTokens ?? this.options.ngramDrafter?.propose(updates.map(({ request }) => request));
    if (drafts !== undefined) this.scheduler.updateDraftTokens(drafts);
    this.publishLoad();
    this.sendOutputs(updates, scheduled.totalNumScheduledTokens);
  }

  private noteFirstScheduled(scheduled: SchedulerOutput): void {
    if (scheduled.newRequests.length === 0) return;
    const now = wallClockMs();
    for (const { key } of scheduled.newRequests) {
      if (!this.firstScheduledMs.has(key)) this.firstScheduledMs.set(key, now);
    }
  }

  private sendOutputs(updates: readonly RequestUpdate[], numStepTokens: number): void {
    const now = wallClockMs();
    const byClient: EngineCoreOutput[][] = this.connections.map(() => []);
    for (const update of updates) {
      byClient[update.request.clientIndex]!.push(this.toOutput(update));
      if (update.finishReason !== null) this.forget(update.request);
    }
    // Who has the last answer of all shall find it in the metrics at once.
    const isLast = !this.scheduler.hasRequests();
    const statsDue =
      isLast || now - this.statsSentMs >= STATS_INTERVAL_MS || this.statsSentMs === Number.POSITIVE_INFINITY;
    if (statsDue) this.statsSentMs = isLast ? Number.POSITIVE_INFINITY : now;
    // Only one client counts the step: one that hears of it anyway, if there is one.
    const counting = Math.max(
      0,
      byClient.findIndex((outputs) => outputs.length > 0),
    );
    byClient.forEach((outputs, clientIndex) => {
      const stats = statsDue && clientIndex === 0 ? this.stats() : null;
      const countedTokens = clientIndex === counting ? numStepTokens : 0;
      if (outputs.length === 0 && stats === null && countedTokens === 0) return;
      this.connections[clientIndex]!.send({
        type: 'outputs',
        outputs: { timestampMs: now, numStepTokens: countedTokens, outputs, stats },
      });
    });
  }

  private toOutput(update: RequestUpdate): EngineCoreOutput {
    const { request } = update;
    const firstScheduledMs = this.firstScheduledMs.get(request.key) ?? 0;
    return {
      handle: request.handle,
      newTokenIds: update.newTokenIds,
      newLogprobs: update.newLogprobs,
      newPromptLogprobs: update.newPromptLogprobs,
      poolerOutput: update.poolerOutput,
      finishReason: update.finishReason,
      stopReason: update.stopReason,
      failure: update.failure,
      numCachedTokens: update.isFirst ? Math.max(0, request.numCachedTokens) : 0,
      firstScheduledMs: update.isFirst ? firstScheduledMs : 0,
      numPreemptions: update.finishReason === null ? 0 : request.numPreemptions,
    };
  }

  private sendStats(): void {
    this.connections[0]?.send({
      type: 'outputs',
      outputs: { timestampMs: wallClockMs(), numStepTokens: 0, outputs: [], stats: this.stats() },
    });
  }

  private stats(): SchedulerStats {
    // The last step's statistics go out within its turn, and have the device's time of it.
    const work = this.options.stepWork?.totals;
    const stepMs = this.stepMs + (this.turnStartedMs === null ? 0 : performance.now() - this.turnStartedMs);
    return {
      ...this.schedulerCounters(),
      numSteps: this.numSteps,
      numScheduledTokens: this.numScheduledTokens,
      stepMs,
      hostMs: stepMs - this.deviceMs,
      estimatedFlops: work?.flops ?? 0,
      estimatedReadBytes: work?.readBytes ?? 0,
      estimatedWriteBytes: work?.writeBytes ?? 0,
    };
  }

  private schedulerCounters(): SchedulerCounters & Pick<SchedulerStats, 'numDeferred' | 'sleepLevel'> {
    const counters = this.scheduler.stats();
    const numCompiling = this.constrained.numWaiting;
    const isPaused = this.scheduler.pauseState !== 'unpaused';
    return {
      ...counters,
      numWaiting: counters.numWaiting + numCompiling,
      numDeferred: isPaused ? counters.numWaiting + numCompiling : numCompiling,
      sleepLevel: this.sleepControl.level ?? -1,
    };
  }

  private publishLoad(): void {
    const { numRunning, numWaiting, kvCacheUsage } = this.scheduler;
    this.status.setLoad(numRunning, numWaiting + this.constrained.numWaiting, kvCacheUsage);
  }

  private receive(): void {
    let received = false;
    this.connections.forEach((connection, clientIndex) => {
      for (let message = connection.receive(); message !== null; message = connection.receive()) {
        received = true;
        this.handle(message, clientIndex);
      }
    });
    if (!received) return;
    this.publishLoad();
    // What is received may wait without a step: asleep, or for its grammar.
    if (this.statsSentMs === Number.POSITIVE_INFINITY) this.statsSentMs = 0;
  }

  private handle(message: ClientMessage, clientIndex: number): void {
    switch (message.type) {
      case 'add':
        this.addRequest(message.request, clientIndex);
        break;
      case 'abort':
        this.abort(message.abort.handles, clientIndex);
        break;
      case 'utility':
        this.utilityCalls.answer(message.call, (result) =>
          this.connections[clientIndex]!.send({ type: 'utility-result', result }),
        );
        break;
    }
  }

  private addRequest(message: EngineCoreRequest, clientIndex: number): void {
    const key = this.nextKey++;
    this.keys[clientIndex]!.set(message.handle, key);
    const request = new Request({
      ...message,
      key,
      clientIndex,
      seed: this.seedOf(message),
      positionOffset: this.executor.positionOffset(message.promptTokenIds.length),
    });
    if (message.samplingParams.structuredOutputs === null) this.scheduler.addRequest(request);
    else this.constrained.add(request);
  }

  /** The sequences of a seeded request draw differently, each reproducibly. */
  private seedOf({ samplingParams: { seed }, sequenceIndex }: EngineCoreRequest): bigint {
    return seed === null ? this.seeds.next() : BigInt(seed) + BigInt(sequenceIndex);
  }

  private abort(handles: readonly number[], clientIndex: number): void {
    const live = this.keys[clientIndex]!;
    const keys = handles.map((handle) => live.get(handle)).filter((key) => key !== undefined);
    for (const handle of handles) live.delete(handle);
    for (const key of keys) {
      this.firstScheduledMs.delete(key);
      this.constrained.release(key);
    }
    this.scheduler.finishRequests(keys, 'abort');
  }

  /** Every request that waits or runs ends here; its client is told. */
  private abortAll(): void {
    const requests = [...this.scheduler.unfinishedRequests(), ...this.constrained.waitingRequests()];
    this.scheduler.finishRequests(
      requests.map(({ key }) => key),
      'abort',
    );
    this.sendOutputs(
      requests.map((request) => ({ ...NOTHING_NEW, request, finishReason: 'abort' })),
      0,
    );
  }

  private forget(request: Request): void {
    this.keys[request.clientIndex]!.delete(request.handle);
    this.firstScheduledMs.delete(request.key);
    this.constrained.release(request.key);
  }
}
