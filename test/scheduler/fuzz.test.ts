import { describe, expect, test } from 'bun:test';
import { blocksPerRequest } from '../../src/kv-cache/kv-cache-config.ts';
import type { ThinkingBudgetParams } from '../../src/sampling/sampling-params.ts';
import type { Request } from '../../src/scheduler/request.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { RequestUpdate } from '../../src/scheduler/scheduler-interface.ts';
import type { SchedulerOptions } from '../../src/scheduler/scheduler-options.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { auditBlocks } from './block-audit.ts';
import { emptyHistory, extendHistory, FAKE_VOCAB_SIZE, FakeWorker, nextToken } from './fake-worker.ts';
import { adapter, generateAlone, kvConfig, makeRequest, range } from './fixtures.ts';

const NUM_SCENARIOS = 10_000;
const FIRST_SEED = Number(process.env.BAO_FUZZ_SEED ?? 1);
const MAX_STEPS = 3_000;

/** Mulberry32. */
class Random {
  constructor(private state: number) {}

  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  int(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  chance(p: number): boolean {
    return this.next() < p;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(0, items.length - 1)]!;
  }
}

interface Scenario {
  options: SchedulerOptions;
  windows: number[];
  blockSize: number;
  numBlocks: number;
  depth: number;
  draftRate: number;
  abortRate: number;
  resetRate: number;
  numRequests: number;
}

function drawScenario(random: Random): Scenario {
  const blockSize = random.pick([1, 2, 4, 8]);
  const maxModelLen = random.int(8, 48);
  const enableChunkedPrefill = random.chance(0.8);
  const maxNumBatchedTokens = enableChunkedPrefill ? random.int(1, 40) : random.int(maxModelLen, maxModelLen + 40);
  const windows = random.pick([[0], [0], [0], [5], [0, 3], [0, 6, 6], [1, 9], [3, 9]]);
  const numLookaheadTokens = random.chance(0.2) ? random.int(1, 4) : 0;
  const groups = kvConfig(1, blockSize, windows).groups;
  const least = blocksPerRequest(groups, {
    maxModelLen,
    maxNumBatchedTokens: maxNumBatchedTokens + numLookaheadTokens,
  });
  return {
    options: {
      maxNumSeqs: random.int(1, 8),
      maxNumBatchedTokens,
      maxModelLen,
      enableChunkedPrefill,
      longPrefillTokenThreshold: random.chance(0.3) ? random.int(1, 12) : 0,
      policy: random.chance(0.5) ? 'fcfs' : 'priority',
      watermark: random.chance(0.3) ? random.next() * 0.3 : 0,
      enablePrefixCaching: random.chance(0.85),
      numLookaheadTokens,
      maxLoras: random.chance(0.5) ? random.int(1, 3) : undefined,
    },
    windows,
    blockSize,
    numBlocks: least + 1 + (random.chance(0.6) ? random.int(0, 4) : random.int(0, 60)),
    depth: random.pick([1, 2, 2, 3]),
    draftRate: random.chance(0.4) ? random.next() : 0,
    abortRate: random.chance(0.4) ? 0.1 : 0,
    resetRate: random.chance(0.2) ? 0.05 : 0,
    numRequests: random.int(1, 10),
  };
}

function drawThinkingBudget(random: Random): ThinkingBudgetParams {
  const startsInside = random.chance(0.7);
  return {
    maxTokens: random.int(0, 6),
    startsInside,
    numUsed: startsInside && random.chance(0.2) ? random.int(1, 3) : 0,
    starts: [[1]],
    ends: [[2], [3]],
  };
}

interface Tracked {
  request: Request;
  order: number[];
  aborted: boolean;
  updates: RequestUpdate[];
}

/** One scheduler with its fake worker, steps in flight like the engine core's, and the checks that hold after each event. */
class Simulation {
  private readonly scheduler: Scheduler;
  private readonly worker: FakeWorker;
  private readonly tracked = new Map<number, Tracked>();
  private readonly inFlight: { scheduled: SchedulerOutput; result: ModelRunnerOutput }[] = [];
  private readonly bases: number[][];
  private releasedKeys: number[] = [];
  private numPreempted = 0;

  constructor(
    private readonly scenario: Scenario,
    private readonly random: Random,
  ) {
    const config = kvConfig(scenario.numBlocks, scenario.blockSize, scenario.windows);
    this.scheduler = new Scheduler(scenario.options, config);
    this.worker = new FakeWorker(config, scenario.options.maxNumSeqs);
    this.bases = range(3).map(() => range(scenario.options.maxModelLen).map(() => random.int(0, FAKE_VOCAB_SIZE - 1)));
  }

  run(): void {
    let toArrive = this.scenario.numRequests;
    for (let step = 0; toArrive > 0 || this.scheduler.hasRequests() || this.inFlight.length > 0; step++) {
      if (step > MAX_STEPS) throw new Error(`stuck with ${this.scheduler.numRunning} running requests`);
      while (toArrive > 0 && this.random.chance(0.4)) {
        toArrive--;
        this.arrive();
      }
      if (this.random.chance(this.scenario.abortRate)) this.abort();
      if (this.random.chance(this.scenario.resetRate)) this.reset();
      this.turn();
    }
    this.checkEnd();
  }

  private arrive(): void {
    const { random } = this;
    const { maxModelLen } = this.scenario.options;
    const numPromptTokens = random.int(1, maxModelLen - (random.chance(0.9) ? 1 : 0));
    const numShared = random.chance(0.7) ? random.int(0, numPromptTokens) : 0;
    const prompt = random.pick(this.bases).slice(0, numShared);
    while (prompt.length < numPromptTokens) prompt.push(random.int(0, FAKE_VOCAB_SIZE - 1));
    const maxTokens = random.int(1, 20);
    const copies = random.chance(0.2) ? random.int(2, 4) : 1;
    for (let i = 0; i < copies; i++) {
      const request = makeRequest(
        prompt,
        {
          maxTokens,
          minTokens: random.chance(0.2) ? random.int(0, maxTokens) : 0,
          ignoreEos: random.chance(0.5),
          stopTokenIds: random.chance(0.2) ? [random.int(0, FAKE_VOCAB_SIZE - 1)] : [],
          logprobs: random.chance(0.3) ? 0 : null,
          promptLogprobs: random.chance(0.2) ? 0 : null,
          logitsProcessors: random.chance(0.1) ? ['any'] : [],
          thinkingBudget: random.chance(0.3) ? drawThinkingBudget(random) : null,
          repetitionDetection: random.chance(0.2)
            ? { minPatternSize: 1, maxPatternSize: random.int(1, 3), minCount: random.int(2, 3) }
            : null,
        },
        {
          priority: random.int(-1, 1),
          arrivalTimeMs: random.int(0, 5),
          cacheSalt: random.chance(0.2) ? 'salt' : null,
          lora: random.chance(0.5) ? adapter(random.int(1, 4)) : null,
        },
      );
      this.scheduler.addRequest(request);
      const order = [request.priority, request.arrivalTimeMs, this.tracked.size];
      this.tracked.set(request.key, {
        request,
        order: this.scenario.options.policy === 'priority' ? order : order.slice(2),
        aborted: false,
        updates: [],
      });
    }
  }

  private abort(): void {
    const live = [...this.tracked.values()].filter(({ request }) => !request.isFinished);
    if (live.length === 0) return;
    const victim = this.random.pick(live);
    victim.aborted = true;
    this.scheduler.finishRequests([victim.request.key, 999_999_999], 'abort');
    expect(victim.request.finishReason).toBe('abort');
    auditBlocks(this.scheduler);
  }

  /** Running requests lose their keys and values, whatever steps are in flight. */
  private reset(): void {
    this.numPreempted += this.scheduler.numRunning;
    expect(this.scheduler.resetPrefixCache(true)).toBe(true);
    expect(this.scheduler.stats()).toMatchObject({ numRunning: 0, kvCacheUsage: 0 });
    auditBlocks(this.scheduler);
  }

  private turn(): void {
    while (this.inFlight.length < this.scenario.depth) {
      const waitingBefore = this.withStatus('waiting', 'preempted');
      const runningBefore = this.withStatus('running');
      const held = this.drawHeld();
      const scheduled = this.scheduler.schedule(held);
      this.checkHeld(scheduled, held);
      this.releasedKeys.push(...scheduled.releasedKeys);
      this.checkStep(scheduled, waitingBefore, runningBefore);
      if (scheduled.totalNumScheduledTokens === 0) {
        if (this.inFlight.length === 0 && this.scheduler.hasRequests() && held.size === 0)
          throw new Error('nothing to do, but requests are left');
        break;
      }
      scheduled.releasedKeys = this.releasedKeys;
      this.releasedKeys = [];
      this.inFlight.push({ scheduled, result: this.worker.execute(scheduled) });
    }
    const step = this.inFlight.shift();
    if (step === undefined) return;
    for (const update of this.scheduler.updateFromOutput(step.scheduled, step.result)) this.take(update);
    auditBlocks(this.scheduler);
    this.draft();
  }

  /** Some of those that have started, as if their masks were not ready. */
  private drawHeld(): Set<number> {
    if (this.random.chance(0.7)) return new Set();
    const started = this.withStatus('running', 'preempted').filter(() => this.random.chance(0.5));
    return new Set(started.map(({ request }) => request.key));
  }

  private checkHeld(scheduled: SchedulerOutput, held: ReadonlySet<number>): void {
    for (const entry of [...scheduled.cachedRequests, ...scheduled.newRequests]) {
      if (!held.has(entry.key)) continue;
      const { request } = this.tracked.get(entry.key)!;
      const isLate = entry.numComputedTokens + entry.numScheduledTokens >= request.numTokens;
      if (isLate) throw new Error(`request ${entry.key} samples although it is held`);
    }
  }

  private withStatus(...statuses: string[]): Tracked[] {
    return [...this.tracked.values()].filter(({ request }) => statuses.includes(request.status));
  }

  private checkStep(scheduled: SchedulerOutput, waitingBefore: Tracked[], runningBefore: Tracked[]): void {
    const { options } = this.scenario;
    const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
    const total = entries.reduce((sum, entry) => sum + entry.numScheduledTokens, 0);
    if (total !== scheduled.totalNumScheduledTokens) throw new Error('totalNumScheduledTokens is not the sum');
    if (total > options.maxNumBatchedTokens) throw new Error(`${total} tokens scheduled`);
    if (entries.length > options.maxNumSeqs) throw new Error(`${entries.length} requests scheduled`);
    if (new Set(entries.map(({ key }) => key)).size !== entries.length) throw new Error('a request is scheduled twice');
    if (options.enableChunkedPrefill && options.longPrefillTokenThreshold > 0) {
      const most = Math.max(0, ...entries.map((entry) => entry.numScheduledTokens));
      if (most > options.longPrefillTokenThreshold) throw new Error(`${most} tokens of one request scheduled`);
    }
    this.checkOrder(waitingBefore, runningBefore);
    auditBlocks(this.scheduler);
  }

  /** Whoever joined comes before whoever still waits; whoever was preempted comes behind whoever still runs. */
  private checkOrder(waitingBefore: Tracked[], runningBefore: Tracked[]): void {
    const isRunning = ({ request }: Tracked) => request.status === 'running';
    const admitted = waitingBefore.filter(isRunning);
    const kept = runningBefore.filter(isRunning);
    const preempted = runningBefore.filter((tracked) => !isRunning(tracked));
    const waiting = waitingBefore.filter((tracked) => !isRunning(tracked));
    const passedOver = this.passedOver();
    for (const a of admitted) {
      for (const w of waiting) if (!passedOver(a, w)) checkBefore(a, w, 'was admitted before');
    }
    for (const k of kept) for (const p of preempted) checkBefore(k, p, 'was kept for');
    if (preempted.length > 0 && admitted.length > 0) throw new Error('a request joined in a step that preempted one');
    this.numPreempted += preempted.length;
  }

  /** Whether a waiting request may be behind an admitted one: its adapter had no room, or another's has waited long enough. */
  private passedOver(): (admitted: Tracked, waiting: Tracked) => boolean {
    const { maxLoras = Number.POSITIVE_INFINITY, maxNumSeqs } = this.scenario.options;
    const runningIds = new Set(this.withStatus('running').flatMap(({ request }) => request.lora?.id ?? []));
    if (runningIds.size > maxLoras) throw new Error(`${runningIds.size} adapters run`);
    const hasNoRoom = ({ request: { lora } }: Tracked) =>
      lora !== null && runningIds.size === maxLoras && !runningIds.has(lora.id);
    const hasWaitedLong = this.withStatus('waiting', 'preempted').some(
      (tracked) => hasNoRoom(tracked) && tracked.request.numOvertakings >= maxNumSeqs,
    );
    return (admitted, waiting) =>
      hasNoRoom(waiting) || (hasWaitedLong && admitted.request.lora === null && waiting.request.lora !== null);
  }

  private take(update: RequestUpdate): void {
    const tracked = this.tracked.get(update.request.key)!;
    if (tracked.aborted) throw new Error('an aborted request has an update');
    expect(update.isFirst).toBe(tracked.updates.length === 0);
    if (update.newTokenIds.length > 0) expect([...update.newLogprobs!.tokenIds]).toEqual(update.newTokenIds);
    tracked.updates.push(update);
  }

  /** Drafts of which some are what the model would say. */
  private draft(): void {
    const { draftRate, options } = this.scenario;
    if (draftRate === 0) return;
    const drafts = this.withStatus('running').map(({ request }) => {
      let history = emptyHistory(request.lora?.id ?? null);
      for (const token of request.tokenIds) history = extendHistory(history, token);
      const tokenIds = range(this.random.int(0, Math.min(4, options.maxNumBatchedTokens))).map(() => {
        const token = this.random.chance(draftRate) ? nextToken(history) : this.random.int(0, FAKE_VOCAB_SIZE - 1);
        history = extendHistory(history, token);
        return token;
      });
      return { key: request.key, tokenIds };
    });
    this.scheduler.updateDraftTokens(drafts);
  }

  private checkEnd(): void {
    expect(this.tracked.size).toBeGreaterThanOrEqual(this.scenario.numRequests);
    for (const { request, aborted, updates } of this.tracked.values()) {
      const output = updates.flatMap(({ newTokenIds }) => newTokenIds);
      const alone = generateAlone(request, this.scenario.options.maxModelLen);
      if (aborted) {
        expect(output).toEqual(alone.output.slice(0, output.length));
        continue;
      }
      const last = updates.at(-1)!;
      expect(output).toEqual(alone.output);
      expect([last.finishReason, last.stopReason]).toEqual([alone.finishReason, alone.stopReason]);
      expect(updates.filter(({ finishReason }) => finishReason !== null)).toHaveLength(1);
      checkPromptLogprobs(request, updates);
    }
    const { scheduler } = this;
    const stats = scheduler.stats();
    expect([stats.numRunning, stats.numWaiting, stats.kvCacheUsage]).toEqual([0, 0, 0]);
    expect(stats.numPreemptions).toBe(this.numPreempted);
    expect(scheduler.resetPrefixCache()).toBe(true);
    auditBlocks(scheduler);
  }
}

function checkBefore(a: Tracked, b: Tracked, what: string): void {
  const i = a.order.findIndex((value, at) => value !== b.order[at]);
  if (a.order[i]! > b.order[i]!) throw new Error(`${a.request.requestId} ${what} ${b.request.requestId}`);
}

function checkPromptLogprobs(request: Request, updates: readonly RequestUpdate[]): void {
  const pieces = updates.flatMap(({ newPromptLogprobs }) => [...(newPromptLogprobs?.tokenIds ?? [])]);
  const wanted =
    request.samplingParams.promptLogprobs === null ? [] : [...request.tokenIds.subarray(1, request.numPromptTokens)];
  expect(pieces).toEqual(wanted);
}

describe('random schedules', () => {
  test(`${NUM_SCENARIOS} keep the invariants, and every answer is the one given alone`, () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + NUM_SCENARIOS; seed++) {
      const random = new Random(seed);
      const scenario = drawScenario(random);
      try {
        new Simulation(scenario, random).run();
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}\n${JSON.stringify(scenario)}`, { cause: error });
      }
    }
  });
});
