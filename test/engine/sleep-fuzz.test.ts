import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { SleepControl } from '../../src/engine/core/sleep-control.ts';
import { SLEEP_LEVELS, SLEEP_MODES, type SleepLevel, type SleepMode, type WakeTag } from '../../src/engine/messages.ts';
import type { Request } from '../../src/scheduler/request.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { MEMORY_TAGS, type MemoryTag } from '../../src/worker/memory-tags.ts';
import { auditBlocks } from '../scheduler/block-audit.ts';
import { FakeWorker } from '../scheduler/fake-worker.ts';
import { adapter, DEFAULT_OPTIONS, generateAlone, kvConfig, makeRequest, range } from '../scheduler/fixtures.ts';

/** Few blocks, so that requests preempt each other. */
const KV_CONFIG = kvConfig(19, 4);
const ALL_TAGS: WakeTag[] = [...MEMORY_TAGS, 'scheduling'];
const MAX_TURNS = 2000;

type Event =
  | { type: 'add'; promptLength: number; maxTokens: number; priority: number; lora: number | null }
  | { type: 'abort'; of: number }
  | { type: 'turn' }
  | { type: 'reset'; running: boolean }
  | { type: 'sleep'; level: SleepLevel; mode: SleepMode }
  | { type: 'wake'; tags: WakeTag[] };

const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('add' as const),
      promptLength: fc.integer({ min: 1, max: 40 }),
      maxTokens: fc.integer({ min: 1, max: 24 }),
      priority: fc.integer({ min: 0, max: 2 }),
      lora: fc.constantFrom(null, null, 1, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('abort' as const), of: fc.nat(20) }) },
  { weight: 8, arbitrary: fc.constant({ type: 'turn' as const }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('reset' as const), running: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('sleep' as const),
      level: fc.constantFrom(...SLEEP_LEVELS),
      mode: fc.constantFrom(...SLEEP_MODES),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('wake' as const), tags: fc.subarray(ALL_TAGS) }) },
);

/** A core's loop around a scheduler that is put to sleep and woken, with two steps in flight. */
class Simulation {
  private readonly worker = new FakeWorker(KV_CONFIG, DEFAULT_OPTIONS.maxNumSeqs);
  private readonly scheduler: Scheduler;
  private readonly control: SleepControl;
  private readonly inFlight: { scheduled: SchedulerOutput; result: ModelRunnerOutput }[] = [];
  private readonly requests: Request[] = [];
  private readonly awake = new Set<MemoryTag>(MEMORY_TAGS);
  private releasedKeys: number[] = [];
  private numCalls = 0;
  private numSleeps = 0;
  private readonly replies: (string | null)[] = [];

  constructor(policy: 'fcfs' | 'priority') {
    this.scheduler = new Scheduler({ ...DEFAULT_OPTIONS, policy, maxLoras: 1 }, KV_CONFIG);
    const executor = {
      sleep: () => {
        expect(this.inFlight).toEqual([]);
        this.awake.clear();
        this.worker.clearCache();
      },
      wakeUp: async (tags: readonly MemoryTag[]) => {
        for (const tag of tags) this.awake.add(tag);
      },
    };
    this.control = new SleepControl(executor, this.scheduler, () => this.abortAll());
  }

  async run(events: readonly Event[]): Promise<void> {
    for (const each of events) {
      await this.handle(each);
      auditBlocks(this.scheduler);
    }
    this.call((reply) => this.control.wakeUp(ALL_TAGS, reply));
    for (let turns = 0; this.control.isDue || this.hasWork; turns++) {
      if (turns > MAX_TURNS) throw new Error('it goes on for ever');
      await this.turn();
    }
    expect(this.replies).toEqual(new Array(this.numCalls).fill(null));
    expect([this.control.level, this.scheduler.pauseState]).toEqual([null, 'unpaused']);
    for (const request of this.requests) this.checkOutput(request);
  }

  private async handle(each: Event): Promise<void> {
    switch (each.type) {
      case 'add':
        this.add(each.promptLength, each.maxTokens, each.priority, each.lora);
        break;
      case 'abort':
        this.scheduler.finishRequests(
          this.requests.slice(each.of, each.of + 1).map(({ key }) => key),
          'abort',
        );
        break;
      case 'turn':
        await this.turn();
        break;
      case 'reset':
        this.scheduler.resetPrefixCache(each.running);
        break;
      case 'sleep':
        this.sleep(each.level, each.mode);
        break;
      case 'wake':
        this.call((reply) => this.control.wakeUp(each.tags, reply));
        break;
    }
  }

  private get hasWork(): boolean {
    return this.scheduler.canSchedule() || this.inFlight.length > 0;
  }

  private call(start: (reply: (error: string | null) => void) => void): void {
    this.numCalls++;
    start((error) => this.replies.push(error));
  }

  private sleep(level: SleepLevel, mode: SleepMode): void {
    const call = ++this.numSleeps;
    const started = this.requests.filter(({ status }) => status === 'running' || status === 'preempted');
    const waits = mode === 'wait' && this.control.level === null && this.scheduler.pauseState === 'unpaused';
    this.call((reply) =>
      this.control.sleep(level, mode, (error) => {
        // Another call may have stopped what this one waits for.
        if (waits && call === this.numSleeps && started.some(({ isFinished }) => !isFinished)) {
          throw new Error('it sleeps before what has started has ended');
        }
        reply(error);
      }),
    );
  }

  private add(promptLength: number, maxTokens: number, priority: number, lora: number | null): void {
    const init = { priority, lora: lora === null ? null : adapter(lora) };
    const request = makeRequest(range(promptLength), { maxTokens }, init);
    this.requests.push(request);
    this.scheduler.addRequest(request);
  }

  private abortAll(): void {
    this.scheduler.finishRequests(
      this.scheduler.unfinishedRequests().map(({ key }) => key),
      'abort',
    );
  }

  private async turn(): Promise<void> {
    if (this.inFlight.length === 0 && this.control.isDue) {
      await this.control.proceed();
      return;
    }
    while (this.inFlight.length < 2 && this.scheduler.canSchedule()) {
      const scheduled = this.scheduler.schedule();
      this.releasedKeys.push(...scheduled.releasedKeys);
      if (scheduled.totalNumScheduledTokens === 0) break;
      if (this.control.level !== null || this.awake.size < MEMORY_TAGS.length) throw new Error('a step while asleep');
      scheduled.releasedKeys = this.releasedKeys;
      this.releasedKeys = [];
      this.inFlight.push({ scheduled, result: this.worker.execute(scheduled) });
    }
    const step = this.inFlight.shift();
    if (step !== undefined) this.scheduler.updateFromOutput(step.scheduled, step.result);
  }

  private checkOutput(request: Request): void {
    const output = [...request.tokenIds.subarray(request.numPromptTokens)];
    const alone = generateAlone(request, DEFAULT_OPTIONS.maxModelLen);
    const isAborted = request.finishReason === 'abort';
    expect(output).toEqual(isAborted ? alone.output.slice(0, output.length) : alone.output);
    if (!isAborted) expect<string | null>(request.finishReason).toBe(alone.finishReason);
  }
}

test('whatever order they come in, calls to sleep and wake are answered, and every request ends as if there had been none', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('fcfs' as const, 'priority' as const),
      fc.array(event, { maxLength: 60 }),
      (policy, events) => new Simulation(policy).run(events),
    ),
    { numRuns: 2000 },
  );
});
