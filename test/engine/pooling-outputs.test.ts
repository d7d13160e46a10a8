import { expect, setSystemTime, test } from 'bun:test';
import type { PoolingRequest, PoolingRequestOutput } from '../../src/engine/engine-client.ts';
import type { EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';
import { type FinishedSequence, NO_OBSERVER, overrideObserver } from '../../src/engine/observer.ts';
import { PoolingOutputs } from '../../src/engine/pooling-outputs.ts';
import { POOLING_SAMPLING_PARAMS, type PoolingParams } from '../../src/pooling/pooling-params.ts';

const POOLING: PoolingParams = { task: 'embed', dimensions: null, useActivation: true, firstTypeOne: null };
const VECTOR = { isTokenwise: false, numRows: 1, width: 2, values: Float32Array.of(1, 2) };

function scene() {
  const finished: FinishedSequence[] = [];
  const observer = overrideObserver(NO_OBSERVER, { onFinished: (_, sequence) => finished.push(sequence) });
  const outputs = new PoolingOutputs(observer);
  const received: (PoolingRequestOutput | Error)[] = [];
  const add = (handle: number) => {
    const promptTokenIds = Int32Array.of(1, 2, 3);
    const request: PoolingRequest = { requestId: `r${handle}`, promptTokenIds, pooling: POOLING };
    const coreRequest: EngineCoreRequest = {
      ...{ handle, sequenceIndex: 0, requestId: request.requestId, promptTokenIds, arrivalTimeMs: 100, priority: 0 },
      ...{ samplingParams: POOLING_SAMPLING_PARAMS, poolingParams: POOLING, eosTokenIds: [] },
      ...{ cacheSalt: null, lora: null },
    };
    outputs.add(request, 1, coreRequest, {
      onOutput: (output) => received.push(output),
      onError: (error) => received.push(error),
    });
  };
  return { outputs, finished, received, add };
}

function outputOf(handle: number, changes: Partial<EngineCoreOutput> = {}): EngineCoreOutput {
  return {
    ...{ handle, newTokenIds: [], newLogprobs: null, newPromptLogprobs: null, poolerOutput: VECTOR },
    ...{ finishReason: 'stop', stopReason: null, numCachedTokens: 2, firstScheduledMs: 150, numPreemptions: 0 },
    failure: null,
    ...changes,
  };
}

test('a request ends with its output, which is told once', () => {
  const { outputs, finished, received, add } = scene();
  add(7);
  add(8);
  expect([outputs.has('r7'), outputs.numQueuedTokens]).toEqual([true, 6]);
  expect(outputs.process(outputOf(7), 200)).toBe(3);
  expect(outputs.process(outputOf(7), 200)).toBe(0);
  expect(received).toEqual([
    { requestId: 'r7', promptTokenIds: Int32Array.of(1, 2, 3), output: VECTOR, numCachedTokens: 2 },
  ]);
  expect([outputs.size, outputs.numQueuedTokens]).toEqual([1, 3]);
  const [{ times, ...sequence }] = finished as [FinishedSequence];
  expect(sequence).toMatchObject({ params: null, finishReason: 'stop', numGenerationTokens: 0, finishedMs: 200 });
  expect([times.arrivalMs, times.firstScheduledMs, times.firstTokenMs]).toEqual([100, 150, 200]);
});

test('one that is taken back is told nothing, and gives what its core must drop', () => {
  const { outputs, finished, received, add } = scene();
  add(7);
  setSystemTime(new Date(0));
  expect(outputs.remove('r7')).toMatchObject({ coreIndex: 1, handle: 7 });
  setSystemTime();
  expect(outputs.remove('r7')).toBeNull();
  expect(outputs.process(outputOf(7), 200)).toBe(0);
  expect(received).toEqual([]);
  expect(finished.map(({ finishReason }) => finishReason)).toEqual(['abort']);
  // By the clock that times its arrival, whatever is done to the system's.
  expect(finished[0]!.finishedMs).toBeGreaterThan(100);
});

test('an end without an output, and the end of the engine, are errors', () => {
  const { outputs, received, add } = scene();
  for (const handle of [1, 2, 3]) add(handle);
  outputs.process(outputOf(1, { poolerOutput: null, finishReason: 'error' }), 200);
  outputs.failAll(new Error('gone'));
  expect(received.map(String)).toEqual([
    'RequestEndedError: Request r1 has ended without an output (error).',
    'Error: gone',
    'Error: gone',
  ]);
  expect([outputs.size, outputs.numQueuedTokens]).toEqual([0, 0]);
});
