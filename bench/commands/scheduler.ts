import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import { Request } from '../../src/scheduler/request.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { randomTokenIds, seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { median, percentile } from '../statistics.ts';
import { formatPairs, shortNumber } from '../table.ts';

const BLOCK_SIZE = 16;
const VOCAB_SIZE = 32000;
/** Until the code is compiled. */
const WARMUP_STEPS = 64;

/** The JSON of `bun bench scheduler`. Times are of one schedule with the update that follows it, in milliseconds. */
export interface SchedulerFigures {
  num_requests: number;
  num_steps: number;
  schedules_per_second: number;
  median_ms: number;
  p99_ms: number;
  microseconds_per_request: number;
}

/** Decode steps with all requests running, without a model. */
export function measureScheduler(numRequests: number, inputLen: number, numSteps: number): SchedulerFigures {
  const scheduler = runningScheduler(numRequests, inputLen, inputLen + BLOCK_SIZE + WARMUP_STEPS + numSteps + 2);
  while (scheduler.numRunning < numRequests || scheduler.numWaiting > 0) step(scheduler);
  for (let i = 0; i < WARMUP_STEPS; i++) step(scheduler);
  const times = Array.from({ length: numSteps }, () => {
    const started = performance.now();
    step(scheduler);
    return performance.now() - started;
  });
  const typical = median(times);
  return {
    num_requests: numRequests,
    num_steps: numSteps,
    schedules_per_second: 1000 / typical,
    median_ms: typical,
    p99_ms: percentile(times, 99),
    microseconds_per_request: (typical * 1000) / numRequests,
  };
}

function runningScheduler(numRequests: number, inputLen: number, maxModelLen: number): Scheduler {
  const numBlocks = numRequests * Math.ceil(maxModelLen / BLOCK_SIZE) + 1;
  const scheduler = new Scheduler(
    {
      maxNumSeqs: numRequests,
      // All prompts in one step.
      maxNumBatchedTokens: numRequests * (inputLen + BLOCK_SIZE),
      maxModelLen,
      enableChunkedPrefill: true,
      longPrefillTokenThreshold: 0,
      policy: 'fcfs',
      watermark: 0,
      enablePrefixCaching: true,
    },
    {
      numBlocks,
      groups: [
        {
          layerNames: ['layer'],
          spec: {
            kind: 'full',
            blockSize: BLOCK_SIZE,
            numKvHeads: 1,
            headDim: 64,
            dtype: 'bfloat16',
            slidingWindow: 0,
            pageBytes: BLOCK_SIZE * 256,
          },
        },
      ],
      tensors: [{ bytes: numBlocks * BLOCK_SIZE * 256, sharedBy: ['layer'] }],
    },
  );
  const random = seededRandom(0);
  for (let key = 1; key <= numRequests; key++) {
    scheduler.addRequest(
      new Request({
        key,
        clientIndex: 0,
        handle: key,
        requestId: `request-${key}`,
        // As in a server, requests do not all fill a block, which is hashed then, in the same step.
        promptTokenIds: randomTokenIds(random, inputLen + (key % BLOCK_SIZE), VOCAB_SIZE),
        samplingParams: { ...DEFAULT_SAMPLING_PARAMS, maxTokens: maxModelLen, ignoreEos: true },
        eosTokenIds: [2],
        seed: 0n,
        arrivalTimeMs: key,
        priority: 0,
        cacheSalt: null,
        lora: null,
      }),
    );
  }
  return scheduler;
}

function step(scheduler: Scheduler): void {
  const scheduled = scheduler.schedule();
  const keys = keysOf(scheduled);
  scheduler.updateFromOutput(scheduled, {
    keys,
    sampledTokenIds: keys.map((key) => [1000 + (key % 1000)]),
    logprobs: keys.map(() => null),
    promptLogprobs: keys.map(() => null),
    failures: [],
  });
}

function keysOf({ cachedRequests, newRequests }: SchedulerOutput): number[] {
  return [...cachedRequests.map(({ key }) => key), ...newRequests.map(({ key }) => key)];
}

export function schedulerTable(figures: SchedulerFigures): string {
  return formatPairs([
    ['Running requests', String(figures.num_requests)],
    ['Schedules a second', shortNumber(figures.schedules_per_second)],
    ['Median / p99', `${figures.median_ms.toFixed(3)} / ${figures.p99_ms.toFixed(3)} ms`],
    ['A request', `${figures.microseconds_per_request.toFixed(2)} us`],
  ]);
}

export const scheduler = defineCommand({
  name: 'scheduler',
  doc: 'Decode steps of the scheduler alone: schedule and update.',
  flags: {
    'num-requests': { type: 'int', default: 1000, min: 1, help: 'Requests that run.' },
    'input-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens of each prompt.' },
    'num-steps': { type: 'int', default: 500, min: 1, help: 'Steps that are measured.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const figures = measureScheduler(values.numRequests, values.inputLen, values.numSteps);
    process.stdout.write(schedulerTable(figures));
    await writeResult(values.outputJson, 'scheduler', figures);
  },
});
