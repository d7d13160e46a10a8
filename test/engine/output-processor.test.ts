import { expect, setSystemTime, test } from 'bun:test';
import { wallClockMs } from '../../src/engine/clock.ts';
import type { EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';
import { type FinishedSequence, NO_OBSERVER, overrideObserver } from '../../src/engine/observer.ts';
import { OutputProcessor } from '../../src/engine/output-processor.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import type { FinishReason } from '../../src/scheduler/finish-reason.ts';

const output = (handle: number, newTokenIds: number[], finishReason: FinishReason | null): EngineCoreOutput => ({
  ...{ handle, newTokenIds, finishReason },
  ...{ newLogprobs: null, newPromptLogprobs: null, stopReason: null },
  ...{ numCachedTokens: 0, firstScheduledMs: 1, numPreemptions: 0, failure: null, poolerOutput: null },
});

function scene(n: number) {
  const finished: FinishedSequence[] = [];
  const observer = overrideObserver(NO_OBSERVER, { onFinished: (_core, sequence) => finished.push(sequence) });
  const outputs = new OutputProcessor(null, observer);
  const samplingParams = { ...DEFAULT_SAMPLING_PARAMS, n };
  const promptTokenIds = new Int32Array([1]);
  const coreRequests = Array.from({ length: n }, (_, i) => ({
    ...{ handle: i + 1, samplingParams, promptTokenIds, arrivalTimeMs: wallClockMs() },
  })) as EngineCoreRequest[];
  const sink = { onOutput() {}, onError() {} };
  outputs.add({ requestId: 'r', promptTokenIds, params: samplingParams }, 0, coreRequests, sink);
  const step = (...news: EngineCoreOutput[]) =>
    outputs.process(0, { timestampMs: 2, outputs: news, numStepTokens: news.length, stats: null });
  return { outputs, finished, step };
}

test('the longest of n answers is told once, with the last that ends', () => {
  const { finished, step } = scene(3);
  step(output(1, [5, 6, 7], 'stop'), output(2, [5], null), output(3, [5], 'stop'));
  step(output(2, [8], 'length'));
  expect(finished.map(({ maxGenerationTokens }) => maxGenerationTokens)).toEqual([null, null, 3]);
});

test('a request that is taken back ends by the clock that it began by, whatever is done to the system’s', () => {
  const { outputs, finished } = scene(1);
  setSystemTime(new Date(0));
  try {
    outputs.remove('r');
  } finally {
    setSystemTime();
  }
  const [{ times, finishedMs }] = finished as [FinishedSequence];
  expect(finishedMs).toBeGreaterThanOrEqual(times.arrivalMs);
});
