import { afterEach, beforeEach, expect, test } from 'bun:test';
import { StepLog } from '../../src/engine/core/step-log.ts';
import { configureLogging, type LoggingOptions } from '../../src/logging/logger.ts';
import type { SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';

let lines: string[] = [];
let before: LoggingOptions;
beforeEach(() => {
  lines = [];
  before = configureLogging({ level: 'info', format: 'text', write: (line) => lines.push(line) });
});
afterEach(() => {
  configureLogging(before);
});

/** Two decode, one goes on with its prompt, one joins. */
const STEP = {
  newRequests: [{ numScheduledTokens: 50 }],
  cachedRequests: [
    { numScheduledTokens: 1, specTokenIds: [] },
    { numScheduledTokens: 3, specTokenIds: [7, 8] },
    { numScheduledTokens: 100, specTokenIds: [] },
  ],
} as unknown as SchedulerOutput;
const LOAD = '2 context requests, 150 context tokens, 2 generation requests, 4 generation tokens';
const counters = () => ({
  ...{ numRunning: 4, numWaiting: 9, kvCacheUsage: 0.5, numPreemptions: 1 },
  ...{ prefixCacheQueries: 0, prefixCacheHits: 0, runningLoraAdapters: [], waitingLoraAdapters: [] },
  ...{ numDrafts: 0, numDraftTokens: 0, numAcceptedTokens: 0, acceptedPerPosition: [] },
});

test('a step that is slower than the limit is told of, with what it was made of', () => {
  const log = new StepLog({ logsAll: false, slowStepMs: 1000 });
  log.note(STEP, 1000, counters);
  expect(lines).toEqual([]);
  log.note(STEP, 1500, counters);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('WARNING');
  expect(lines[0]).toContain(`Slow step 1: 1.50 s for ${LOAD}; running 4, waiting 9, KV cache 50.0%, 1 preemptions`);
});

test('each step has a line where the operator asks for it, in vLLM’s words', () => {
  const log = new StepLog({ logsAll: true, slowStepMs: null });
  log.note(STEP, 12.345, counters);
  expect(lines[0]).toContain(`Iteration(0): ${LOAD}, iteration elapsed time: 12.35 ms`);
});

test('nothing is told of by default', () => {
  const log = new StepLog({ logsAll: false, slowStepMs: null });
  log.note(STEP, 1e9, counters);
  expect(lines).toEqual([]);
});
