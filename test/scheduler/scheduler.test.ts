import { describe, expect, test } from 'bun:test';
import type { Request } from '../../src/scheduler/request.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { SchedulerOptions } from '../../src/scheduler/scheduler-options.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { FakeWorker } from './fake-worker.ts';
import { adapter, DEFAULT_OPTIONS, generateAlone, kvConfig, makeRequest, range } from './fixtures.ts';

interface Machine {
  scheduler: Scheduler;
  worker: FakeWorker;
}

/** Blocks of 4 tokens, by default more than enough. */
function machine(options: Partial<SchedulerOptions> = {}, numBlocks = 200, windows = [0]): Machine {
  const config = kvConfig(numBlocks, 4, windows);
  const all = { ...DEFAULT_OPTIONS, ...options };
  return { scheduler: new Scheduler(all, config), worker: new FakeWorker(config, all.maxNumSeqs) };
}

function add(scheduler: Scheduler, ...requests: Request[]): void {
  for (const request of requests) scheduler.addRequest(request);
}

/** Schedules and runs one step, and takes its result in. */
function step({ scheduler, worker }: Machine): { scheduled: SchedulerOutput; result: ModelRunnerOutput } {
  const scheduled = scheduler.schedule();
  const result = worker.execute(scheduled);
  scheduler.updateFromOutput(scheduled, result);
  return { scheduled, result };
}

/** Key to tokens scheduled. */
function amounts(scheduled: SchedulerOutput): [number, number][] {
  const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
  return entries.map(({ key, numScheduledTokens }) => [key, numScheduledTokens]);
}

const output = (request: Request) => [...request.tokenIds.subarray(request.numPromptTokens)];

describe('budget', () => {
  test('running requests come first, prompts share what is left, in chunks', () => {
    const m = machine({ maxNumBatchedTokens: 10 });
    const [a, b] = [makeRequest(range(4)), makeRequest(range(20, 30))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 4],
      [b!.key, 6],
    ]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 9],
    ]);
    expect(output(b!)).toEqual([]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 5],
    ]);
    expect(output(b!)).toEqual(generateAlone(b!, 64).output.slice(0, 1));
  });

  test('a long prompt takes no more than the threshold', () => {
    const m = machine({ maxNumBatchedTokens: 20, longPrefillTokenThreshold: 8 });
    const [a, b] = [makeRequest(range(30)), makeRequest(range(10, 40))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled).map(([, n]) => n)).toEqual([8, 8]);
    expect(amounts(step(m).scheduled).map(([, n]) => n)).toEqual([8, 2]);
  });

  test('without chunked prefill a prompt waits until it fits whole, and nobody overtakes it', () => {
    const m = machine({ maxNumBatchedTokens: 64, enableChunkedPrefill: false, longPrefillTokenThreshold: 4 });
    const [a, b, c] = [makeRequest(range(50)), makeRequest(range(15, 100)), makeRequest(range(2, 200))];
    add(m.scheduler, a!, b!, c!);
    expect(amounts(step(m).scheduled)).toEqual([[a!.key, 50]]);
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 15],
      [c!.key, 2],
    ]);
  });

  test('no more than maxNumSeqs run', () => {
    const m = machine({ maxNumSeqs: 2 });
    const requests = range(3).map((i) => makeRequest([i], { maxTokens: 2 }));
    add(m.scheduler, ...requests);
    step(m);
    expect([m.scheduler.numRunning, m.scheduler.numWaiting]).toEqual([2, 1]);
    step(m);
    const { scheduled } = step(m);
    expect(scheduled.releasedKeys).toEqual([requests[0]!.key, requests[1]!.key]);
    expect(scheduled.newRequests.map(({ key }) => key)).toEqual([requests[2]!.key]);
  });

  test('options that could leave a request waiting forever are refused', () => {
    expect(() => machine({ enableChunkedPrefill: false, maxNumBatchedTokens: 63 })).toThrow(
      'max_num_batched_tokens 63',
    );
    expect(() => machine({}, 16)).toThrow('16 KV blocks are too few');
    expect(() => machine({}, 17)).not.toThrow();
  });

  test('a prompt that can never run is refused', () => {
    const { scheduler } = machine();
    expect(() => scheduler.addRequest(makeRequest([]))).toThrow('prompt of 0 tokens');
    expect(() => scheduler.addRequest(makeRequest(range(65)))).toThrow('must have 1 to 64');
    expect(scheduler.hasRequests()).toBe(false);
  });
});

describe('preemption', () => {
  test('fcfs: the last to come gives up its blocks, comes back first and answers the same', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 20 }), makeRequest(range(28, 100), { maxTokens: 20 })];
    const c = makeRequest([1], { maxTokens: 1 });
    add(m.scheduler, a!, b!);
    step(m);
    expect(m.scheduler.numRunning).toBe(2);
    add(m.scheduler, c);
    while (b!.numPreemptions === 0) step(m);
    expect(b!.status).toBe('preempted');
    const numKnown = b!.numTokens;
    let back = step(m).scheduled.newRequests;
    while (back.length === 0) back = step(m).scheduled.newRequests;
    expect(back[0]!.key).toBe(b!.key);
    expect(back[0]!.tokenIds).toHaveLength(numKnown);
    while (m.scheduler.hasRequests()) step(m);
    for (const request of [a!, b!, c]) expect(output(request)).toEqual(generateAlone(request, 64).output);
    expect(m.scheduler.stats().numPreemptions).toBe(a!.numPreemptions + b!.numPreemptions + c.numPreemptions);
  });

  test('priority: the least urgent gives up its blocks, though it came first', () => {
    const m = machine({ policy: 'priority' }, 18);
    const slow = makeRequest(range(28), { maxTokens: 20 }, { priority: 5 });
    const urgent = makeRequest(range(36, 100), { maxTokens: 20 }, { priority: -5 });
    add(m.scheduler, slow);
    step(m);
    add(m.scheduler, urgent);
    while (m.scheduler.hasRequests()) step(m);
    expect([slow.numPreemptions > 0, urgent.numPreemptions]).toEqual([true, 0]);
    expect(output(slow)).toEqual(generateAlone(slow, 64).output);
  });

  test('what is left of its blocks in the prefix cache is not computed again, nor counted as a hit', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 4 }), makeRequest(range(27, 100), { maxTokens: 20 })];
    add(m.scheduler, a!, b!);
    let scheduled = step(m).scheduled;
    while (b!.numPreemptions === 0) scheduled = step(m).scheduled;
    while (!scheduled.newRequests.some(({ key }) => key === b!.key)) scheduled = step(m).scheduled;
    expect(scheduled.newRequests[0]!.numComputedTokens).toBeGreaterThan(0);
    expect(b!.numCachedTokens).toBe(0);
    expect(m.scheduler.stats()).toMatchObject({ prefixCacheQueries: 63, prefixCacheHits: 0 });
  });

  test('the watermark keeps blocks free for running requests, but not from the only one', () => {
    const m = machine({ watermark: 0.5 }, 20);
    const [a, b] = [makeRequest(range(60)), makeRequest(range(4, 100))];
    add(m.scheduler, a!, b!);
    expect(amounts(step(m).scheduled).map(([key]) => key)).toEqual([a!.key]);
    m.scheduler.finishRequests([a!.key], 'abort');
    expect(amounts(step(m).scheduled).map(([key]) => key)).toEqual([b!.key]);
  });
});

describe('prefix cache', () => {
  test('the copies of an n > 1 request, admitted in one step, compute their prompt once', () => {
    const m = machine({ maxNumBatchedTokens: 64 });
    const copies = range(4).map(() => makeRequest(range(22), { maxTokens: 3 }));
    add(m.scheduler, ...copies);
    const { newRequests } = step(m).scheduled;
    expect(newRequests.map(({ numScheduledTokens }) => numScheduledTokens)).toEqual([22, 2, 2, 2]);
    expect(newRequests[3]!.blockIds[0]!.slice(0, 5)).toEqual(newRequests[0]!.blockIds[0]!.slice(0, 5));
    while (m.scheduler.hasRequests()) step(m);
    for (const copy of copies) expect(output(copy)).toEqual(generateAlone(copy, 64).output);
    expect(copies.map(({ numCachedTokens }) => numCachedTokens)).toEqual([0, 20, 20, 20]);
    expect(m.scheduler.stats()).toMatchObject({ prefixCacheQueries: 88, prefixCacheHits: 60 });
  });

  test('a later turn of a conversation finds the answer too, whatever is in flight', () => {
    for (const depth of [1, 2]) {
      const m = machine();
      const first = makeRequest(range(10), { maxTokens: 7 });
      add(m.scheduler, first);
      runToEnd(m, depth);
      // 16 tokens are computed: the last one's keys never were, or are written in vain.
      const second = makeRequest([...first.tokenIds, 5, 6, 7]);
      add(m.scheduler, second);
      step(m);
      expect(second.numCachedTokens).toBe(16);
    }
  });

  test('prompt log probabilities are computed, not skipped, and other requests may use what they left', () => {
    const m = machine();
    const [a, b] = [makeRequest(range(12)), makeRequest(range(12), { promptLogprobs: 0 })];
    add(m.scheduler, a!, b!);
    const { scheduled, result } = step(m);
    expect(scheduled.newRequests.map(({ numScheduledTokens }) => numScheduledTokens)).toEqual([12, 12]);
    expect([...result.promptLogprobs[1]!.tokenIds]).toEqual(range(11, 1));
    expect(m.scheduler.stats().prefixCacheQueries).toBe(12);
  });

  test('hits are what a list of all prefixes seen would give, while nothing is evicted', () => {
    let numHits = 0;
    for (let seed = 1; seed <= 200; seed++) numHits += compareWithPrefixList(seed);
    expect(numHits).toBeGreaterThan(1000);
  });

  test('reset waits for running requests', () => {
    const m = machine();
    const request = makeRequest(range(12));
    add(m.scheduler, request);
    step(m);
    expect(m.scheduler.resetPrefixCache()).toBe(false);
    m.scheduler.finishRequests([request.key], 'abort');
    expect(m.scheduler.resetPrefixCache()).toBe(true);
    const again = makeRequest(range(12));
    add(m.scheduler, again);
    step(m);
    expect(again.numCachedTokens).toBe(0);
  });
});

describe('async scheduling', () => {
  test('the next step is scheduled on tokens in flight, and not beyond max_tokens', () => {
    const { scheduler } = machine();
    const request = makeRequest(range(6), { maxTokens: 2 });
    add(scheduler, request);
    expect(amounts(scheduler.schedule())).toEqual([[request.key, 6]]);
    const second = scheduler.schedule();
    expect(second.cachedRequests[0]).toMatchObject({ numComputedTokens: 6, numScheduledTokens: 1 });
    expect(scheduler.schedule().totalNumScheduledTokens).toBe(0);
  });

  test('nor beyond the model length', () => {
    const { scheduler } = machine();
    add(scheduler, makeRequest(range(62), { maxTokens: 50 }));
    const totals = range(4).map(() => scheduler.schedule().totalNumScheduledTokens);
    expect(totals).toEqual([62, 1, 0, 0]);
  });

  test('a result behind the end is dropped', () => {
    const { scheduler, worker } = machine();
    const request = makeRequest(range(6), { maxTokens: 10 });
    request.samplingParams.stopTokenIds = generateAlone(request, 64).output.slice(0, 1);
    add(scheduler, request);
    const steps = range(2).map(() => {
      const scheduled = scheduler.schedule();
      return { scheduled, result: worker.execute(scheduled) };
    });
    const updates = steps.map(({ scheduled, result }) => scheduler.updateFromOutput(scheduled, result));
    expect(updates[0]).toMatchObject([{ finishReason: 'stop', stopReason: request.samplingParams.stopTokenIds[0] }]);
    expect(updates[1]).toEqual([]);
    expect(scheduler.schedule().releasedKeys).toEqual([request.key]);
  });

  test('a preempted request keeps the token in flight and waits for it', () => {
    const m = machine({}, 18);
    const [a, b] = [makeRequest(range(36), { maxTokens: 20 }), makeRequest(range(28, 100), { maxTokens: 20 })];
    add(m.scheduler, a!, b!);
    let previous = m.scheduler.schedule();
    let next = m.scheduler.schedule();
    while (b!.numPreemptions === 0) {
      m.scheduler.updateFromOutput(previous, allSampled(previous));
      previous = next;
      next = m.scheduler.schedule();
    }
    // `previous`, in which it still ran, is in flight; `next` preempted it.
    const numKnown = b!.numTokens;
    expect(b!.numOutputPlaceholders).toBe(1);
    m.scheduler.finishRequests([a!.key], 'abort');
    expect(m.scheduler.schedule().newRequests).toEqual([]);
    const updates = m.scheduler.updateFromOutput(previous, allSampled(previous));
    expect(updates).toMatchObject([{ request: b!, newTokenIds: [3] }]);
    expect(m.scheduler.schedule().newRequests[0]!.tokenIds).toHaveLength(numKnown + 1);
  });
});

describe('aborts', () => {
  test('free everything at once, wherever the request is', () => {
    const m = machine({ maxNumSeqs: 1 });
    const [running, waiting] = [makeRequest(range(9)), makeRequest(range(9, 50))];
    add(m.scheduler, running!, waiting!);
    step(m);
    m.scheduler.finishRequests([running!.key, waiting!.key, running!.key, 123456789], 'abort');
    expect(m.scheduler.stats()).toMatchObject({ numRunning: 0, numWaiting: 0, kvCacheUsage: 0 });
    expect([running!.finishReason, waiting!.finishReason]).toEqual(['abort', 'abort']);
    expect(m.scheduler.hasRequests()).toBe(false);
    expect(m.scheduler.schedule()).toMatchObject({ totalNumScheduledTokens: 0, releasedKeys: [running!.key] });
  });
});

describe('speculative tokens', () => {
  /** A request that has computed its prompt, and what the model says next. */
  function decoding(m: Machine, maxTokens = 10): { request: Request; future: number[] } {
    const request = makeRequest(range(6), { maxTokens });
    add(m.scheduler, request);
    step(m);
    return { request, future: generateAlone(request, 64).output.slice(1) };
  }

  const wrong = (token: number) => (token + 1) % 12;

  test('accepted drafts are kept with the token behind them', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 3) }]);
    const { scheduled } = step(m);
    expect(scheduled.cachedRequests[0]).toMatchObject({ numScheduledTokens: 4, specTokenIds: future.slice(0, 3) });
    expect(request.numOutputTokens).toBe(5);
    expect(request.numComputedTokens).toBe(request.numTokens - 1);
  });

  test('rejected drafts are computed in vain', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: [future[0]!, wrong(future[1]!), future[2]!] }]);
    step(m);
    expect(request.numOutputTokens).toBe(3);
    expect(request.numComputedTokens).toBe(request.numTokens - 1);
    while (m.scheduler.hasRequests()) step(m);
    expect(output(request)).toEqual(generateAlone(request, 64).output);
  });

  test('tokens behind a stop are dropped, with their log probabilities', () => {
    const m = machine();
    const { request, future } = decoding(m);
    request.samplingParams.stopTokenIds = [future[1]!];
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 4) }]);
    const scheduled = m.scheduler.schedule();
    const [update] = m.scheduler.updateFromOutput(scheduled, m.worker.execute(scheduled));
    const kept = future.slice(0, future.indexOf(future[1]!) + 1);
    expect(update!.newTokenIds).toEqual(kept);
    expect([...update!.newLogprobs!.tokenIds]).toEqual(kept);
    expect([update!.finishReason, update!.stopReason]).toEqual(['stop', future[1]!]);
  });

  test('no more drafts than the request, or the budget, has room for', () => {
    const m = machine({ maxNumBatchedTokens: 6 });
    const { request, future } = decoding(m, 4);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 3) }]);
    expect(m.scheduler.schedule().cachedRequests[0]!.specTokenIds).toEqual(future.slice(0, 2));
    const small = machine({ maxNumBatchedTokens: 2 });
    const other = decoding(small);
    step(small);
    step(small);
    small.scheduler.updateDraftTokens([{ key: other.request.key, tokenIds: other.future.slice(0, 3) }]);
    expect(small.scheduler.schedule().cachedRequests[0]!.specTokenIds).toEqual(other.future.slice(0, 1));
  });

  test('with drafts in flight a request waits for their verification, and takes no new ones', () => {
    const m = machine();
    const { request, future } = decoding(m);
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: future.slice(0, 2) }]);
    m.scheduler.schedule();
    m.scheduler.updateDraftTokens([{ key: request.key, tokenIds: [1] }]);
    expect(m.scheduler.schedule().totalNumScheduledTokens).toBe(0);
    expect(request.specTokenIds).toEqual([]);
  });
});

describe('logits processors', () => {
  test('a request that has some waits for its token in flight; its steps are marked', () => {
    const { scheduler, worker } = machine({ maxNumBatchedTokens: 20 });
    const [plain, processed] = [makeRequest(range(4)), makeRequest(range(30, 30), { logitsProcessors: ['any'] })];
    add(scheduler, plain!, processed!);
    const steps = [scheduler.schedule()];
    const results = steps.map((scheduled) => worker.execute(scheduled));
    const next = () => {
      const scheduled = scheduler.schedule();
      steps.push(scheduled);
      results.push(worker.execute(scheduled));
      scheduler.updateFromOutput(steps.shift()!, results.shift()!);
      return [amounts(scheduled), scheduled.waitsForLogits];
    };
    // The first two steps compute its prompt: only the second samples.
    expect(steps[0]!.waitsForLogits).toBe(false);
    expect(next()).toEqual([
      [
        [plain!.key, 1],
        [processed!.key, 14],
      ],
      true,
    ]);
    expect(next()).toEqual([[[plain!.key, 1]], false]);
    expect(next()).toEqual([
      [
        [plain!.key, 1],
        [processed!.key, 1],
      ],
      true,
    ]);
    expect(next()).toEqual([[[plain!.key, 1]], false]);
  });

  test('a failure ends its request at once, whatever it sampled, and no other', () => {
    const { scheduler, worker } = machine();
    const [good, bad] = [makeRequest(range(4)), makeRequest(range(4, 10))];
    add(scheduler, good!, bad!);
    const scheduled = scheduler.schedule();
    const result = worker.execute(scheduled);
    const failures = [
      { key: bad!.key, message: 'It failed.' },
      { key: 123456, message: 'Nobody.' },
    ];
    const updates = scheduler.updateFromOutput(scheduled, { ...result, failures });
    expect(updates).toMatchObject([
      { request: bad, newTokenIds: [], finishReason: 'error', failure: { fault: 'server', message: 'It failed.' } },
      { request: good, finishReason: null, failure: null },
    ]);
    expect(bad!.finishReason).toBe('error');
    expect(scheduler.numRunning).toBe(1);
    expect(scheduler.schedule().releasedKeys).toEqual([bad!.key]);
  });
});

test('a result that does not belong to its step is an error', () => {
  const { scheduler, worker } = machine();
  add(scheduler, makeRequest(range(3)), makeRequest(range(4)));
  const scheduled = scheduler.schedule();
  const result = worker.execute(scheduled);
  expect(() => scheduler.updateFromOutput(scheduled, { ...result, keys: result.keys.toReversed() })).toThrow(
    'result 0',
  );
  result.sampledTokenIds[0] = [1, 2];
  expect(() => scheduler.updateFromOutput(scheduled, result)).toThrow('given 2 tokens');
});

describe('adapters', () => {
  const withAdapter = (id: number, maxTokens = 3) => makeRequest(range(4), { maxTokens }, { lora: adapter(id) });

  test('at most max_loras run at once; the others are passed over, by requests of the base model too', () => {
    const m = machine({ maxLoras: 2 });
    const [a, b, c, again, base] = [
      withAdapter(1),
      withAdapter(2),
      withAdapter(3),
      withAdapter(1),
      makeRequest(range(4)),
    ];
    for (const request of [a, b, c, again, base]) m.scheduler.addRequest(request);
    const { scheduled } = step(m);
    expect(scheduled.newRequests.map(({ key }) => key)).toEqual([a, b, again, base].map(({ key }) => key));
    expect(scheduled.newRequests.map(({ lora }) => lora?.id ?? null)).toEqual([1, 2, 1, null]);
    expect(m.scheduler.stats().runningLoraAdapters).toEqual(['adapter-1', 'adapter-2']);
    expect(m.scheduler.stats().waitingLoraAdapters).toEqual(['adapter-3']);
    m.scheduler.finishRequests([b.key], 'abort');
    expect(step(m).scheduled.newRequests.map(({ key }) => key)).toEqual([c.key]);
    runToEnd(m, 1);
    expect(m.scheduler.stats().runningLoraAdapters).toEqual([]);
  });

  test('who is passed over waits no longer than as many admissions as run at once', () => {
    const m = machine({ maxLoras: 1, maxNumSeqs: 3 });
    const first = withAdapter(1, 2);
    const other = withAdapter(2);
    m.scheduler.addRequest(first);
    m.scheduler.addRequest(other);
    let numBefore = 0;
    // Requests of the running adapter never end to come.
    for (let i = 0; i < 50 && other.status === 'waiting'; i++) {
      m.scheduler.addRequest(withAdapter(1, 2));
      const { scheduled } = step(m);
      numBefore += scheduled.newRequests.filter(({ lora }) => lora?.id === 1).length;
    }
    expect(other.status).toBe('running');
    expect(numBefore).toBeLessThanOrEqual(4);
    runToEnd(m, 1);
  });

  test('a request whose adapter can not be read ends with an error, and its blocks are free', () => {
    const m = machine({ maxLoras: 1 });
    const broken = withAdapter(1);
    const base = makeRequest(range(4), { maxTokens: 2 });
    m.scheduler.addRequest(broken);
    m.scheduler.addRequest(base);
    const scheduled = m.scheduler.schedule();
    const next = m.scheduler.schedule();
    const result = { ...m.worker.execute(scheduled), failures: [{ key: broken.key, message: 'gone' }] };
    const updates = m.scheduler.updateFromOutput(scheduled, result);
    expect(updates.map(({ request, finishReason }) => [request, finishReason])).toEqual([
      [broken, 'error'],
      [base, null],
    ]);
    expect(updates[0]).toMatchObject({ newTokenIds: [], failure: { fault: 'server', message: 'gone' } });
    // It is in the step in flight too, whose result of it is dropped.
    const late = m.scheduler.updateFromOutput(next, m.worker.execute(next));
    expect(late.map(({ request }) => request)).toEqual([base]);
    expect(m.scheduler.stats().kvCacheUsage).toBe(0);
  });
});

/** The result of a step in which every request samples token 3. */
function allSampled(scheduled: SchedulerOutput): ModelRunnerOutput {
  const entries = [...scheduled.cachedRequests, ...scheduled.newRequests];
  return {
    keys: entries.map(({ key }) => key),
    sampledTokenIds: entries.map(() => [3]),
    logprobs: entries.map(() => null),
    promptLogprobs: entries.map(() => null),
    failures: [],
  };
}

function runToEnd({ scheduler, worker }: Machine, depth: number): void {
  const inFlight: { scheduled: SchedulerOutput; result: ModelRunnerOutput }[] = [];
  while (scheduler.hasRequests() || inFlight.length > 0) {
    const scheduled = scheduler.schedule();
    if (scheduled.totalNumScheduledTokens > 0) inFlight.push({ scheduled, result: worker.execute(scheduled) });
    if (inFlight.length < depth && scheduled.totalNumScheduledTokens > 0) continue;
    const oldest = inFlight.shift();
    if (oldest !== undefined) scheduler.updateFromOutput(oldest.scheduled, oldest.result);
  }
}

/** Random requests on a large cache; gives the number of tokens found. */
function compareWithPrefixList(seed: number): number {
  let state = seed;
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % n;
  };
  const m = machine(
    { maxNumBatchedTokens: 8 + random(60), maxNumSeqs: 1 + random(6) },
    2000,
    [[0], [7], [0, 5]][random(3)],
  );
  const seen = new Set<string>();
  const requests = range(12).map(() => {
    const numShared = random(40);
    const prompt = [...range(numShared), ...range(1 + random(8), 100 + random(3))];
    return makeRequest(prompt, { maxTokens: 1 + random(8) }, { cacheSalt: ['a', 'b'][random(2)]! });
  });
  const byKey = new Map(requests.map((request) => [request.key, request]));
  const prefix = (request: Request, length: number) => `${request.cacheSalt}:${request.tokenIds.subarray(0, length)}`;
  add(m.scheduler, ...requests);
  let numHits = 0;
  while (m.scheduler.hasRequests()) {
    const scheduled = m.scheduler.schedule();
    for (const entry of [...scheduled.cachedRequests, ...scheduled.newRequests]) {
      const request = byKey.get(entry.key)!;
      if ('requestId' in entry) {
        let hit = 0;
        while (hit + 4 < request.numTokens && seen.has(prefix(request, hit + 4))) hit += 4;
        expect(entry.numComputedTokens).toBe(hit);
        numHits += hit;
      }
      for (let n = 4; n <= entry.numComputedTokens + entry.numScheduledTokens; n += 4) seen.add(prefix(request, n));
    }
    m.scheduler.updateFromOutput(scheduled, m.worker.execute(scheduled));
  }
  expect(m.scheduler.stats().prefixCacheHits).toBe(numHits);
  return numHits;
}

describe('pausing', () => {
  test('paused-new lets the running ones go on and nobody join; paused-all stops them too', () => {
    const m = machine({ maxNumBatchedTokens: 10 });
    const [a, b] = [makeRequest(range(4)), makeRequest(range(4, 20))];
    add(m.scheduler, a!);
    step(m);
    m.scheduler.pauseState = 'paused-new';
    add(m.scheduler, b!);
    expect(m.scheduler.canSchedule()).toBe(true);
    expect(amounts(step(m).scheduled)).toEqual([[a!.key, 1]]);
    m.scheduler.pauseState = 'paused-all';
    expect(m.scheduler.canSchedule()).toBe(false);
    expect(m.scheduler.schedule().totalNumScheduledTokens).toBe(0);
    m.scheduler.pauseState = 'unpaused';
    expect(amounts(step(m).scheduled)).toEqual([
      [a!.key, 1],
      [b!.key, 4],
    ]);
  });

  test('paused-new has nothing to schedule once the running ones have ended', () => {
    const m = machine();
    const a = makeRequest(range(4));
    m.scheduler.pauseState = 'paused-new';
    add(m.scheduler, a);
    expect([m.scheduler.canSchedule(), m.scheduler.hasRequests()]).toEqual([false, true]);
    expect(m.scheduler.unfinishedRequests()).toEqual([a]);
  });
});

test('a reset of the prefix cache may preempt what runs; its output is the same', () => {
  const m = machine({ enablePrefixCaching: true });
  const request = makeRequest(range(12), { maxTokens: 8 });
  add(m.scheduler, request);
  step(m);
  step(m);
  expect(m.scheduler.resetPrefixCache()).toBe(false);
  expect(m.scheduler.resetPrefixCache(true)).toBe(true);
  expect(m.scheduler.stats()).toMatchObject({ numRunning: 0, numWaiting: 1, kvCacheUsage: 0, numPreemptions: 1 });
  // All of it is computed anew: nothing was left in the cache.
  expect(amounts(step(m).scheduled)).toEqual([[request.key, 14]]);
  while (m.scheduler.hasRequests()) step(m);
  expect(output(request)).toEqual(generateAlone(request, 64).output);
});
