import { expect, setSystemTime, test } from 'bun:test';
import { join } from 'node:path';
import { wallClockMs } from '../../src/engine/clock.ts';
import type { RequestOutput } from '../../src/engine/engine-client.ts';
import type { EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';
import {
  type EngineObserver,
  type FinishedSequence,
  NO_OBSERVER,
  overrideObserver,
} from '../../src/engine/observer.ts';
import { OutputProcessor } from '../../src/engine/output-processor.ts';
import type { LogprobsTensors } from '../../src/sampling/logprobs-tensors.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import type { FinishReason } from '../../src/scheduler/finish-reason.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const tokenizer = await createTokenizer(join(import.meta.dir, '../../models/demo'), { mode: 'js' });

const output = (
  handle: number,
  newTokenIds: number[],
  finishReason: FinishReason | null,
  more: Partial<EngineCoreOutput> = {},
): EngineCoreOutput => ({
  ...{ handle, newTokenIds, finishReason },
  ...{ newLogprobs: null, newPromptLogprobs: null, stopReason: null },
  ...{ numCachedTokens: 0, firstScheduledMs: 1, numPreemptions: 0, failure: null, poolerOutput: null },
  ...more,
});

/** A request of n sequences, whose handles are 1 to n. */
function scene(n: number, params: Partial<SamplingParams> = {}, observer: EngineObserver = NO_OBSERVER) {
  const finished: FinishedSequence[] = [];
  const hearing = overrideObserver(observer, { onFinished: (_core, sequence) => finished.push(sequence) });
  const outputs = new OutputProcessor(tokenizer, hearing);
  const samplingParams: SamplingParams = { ...DEFAULT_SAMPLING_PARAMS, outputKind: 'delta', ...params, n };
  const promptTokenIds = Int32Array.of(300, 301, 302);
  const coreRequests = Array.from({ length: n }, (_, i) => ({
    ...{ handle: i + 1, samplingParams, promptTokenIds, arrivalTimeMs: wallClockMs() },
  })) as EngineCoreRequest[];
  const told: RequestOutput[] = [];
  const sink = { onOutput: (each: RequestOutput) => told.push(each), onError() {} };
  outputs.add({ requestId: 'r', promptTokenIds, params: samplingParams }, 0, coreRequests, sink);
  const step = (...news: EngineCoreOutput[]) =>
    outputs.process(0, { timestampMs: 2, outputs: news, numStepTokens: news.length, stats: null });
  const choices = () => told.flatMap((each) => each.outputs);
  return { outputs, finished, told, choices, step };
}

const encode = (text: string) => [...tokenizer.encode(text, { addSpecialTokens: false })];

/** Log probabilities of prompt positions, as many as there are ids. */
const promptLogprobs = (...ids: number[]): LogprobsTensors => ({
  ...{ numPositions: ids.length, width: 1, tokenIds: Int32Array.from(ids) },
  ...{ logprobs: Float32Array.from(ids, (id) => -id), ranks: Int32Array.from(ids, () => 1) },
});

test('the longest of n answers is told once, with the last that ends', () => {
  const { finished, step } = scene(3);
  step(output(1, [5, 6, 7], 'stop'), output(2, [5], null), output(3, [5], 'stop'));
  step(output(2, [8], 'length'));
  expect(finished.map(({ maxGenerationTokens }) => maxGenerationTokens)).toEqual([null, null, 3]);
});

test('of a step, sequences that have waited equally long are told together', () => {
  const told: [coreIndex: number, latencyMs: number, count: number][] = [];
  const observer = overrideObserver(NO_OBSERVER, { onInterTokenLatency: (...latency) => told.push(latency) });
  const { outputs } = scene(4, {}, observer);
  const step = (timestampMs: number, ...handles: number[]) =>
    outputs.process(0, {
      ...{ timestampMs, outputs: handles.map((handle) => output(handle, [300], null)) },
      ...{ numStepTokens: handles.length, stats: null },
    });
  step(10, 1, 2, 3);
  step(30, 2, 4);
  step(60, 1, 2, 3, 4);
  expect(told).toEqual([
    [0, 20, 1],
    [0, 50, 1],
    [0, 30, 1],
    [0, 50, 1],
    [0, 30, 1],
  ]);
  told.length = 0;
  step(100, 1, 2, 3, 4);
  expect(told).toEqual([[0, 40, 4]]);
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

test('a stop string ends its sequence, wherever tokens end, and the core is told to drop it', () => {
  const { step, choices, outputs } = scene(1, { stop: ['end of it'] });
  const toAbort = [...encode('Here is the end of it, or so'), 300].flatMap((id) => step(output(1, [id], null)).toAbort);
  expect(toAbort).toEqual([1]);
  expect(
    choices()
      .map(({ text }) => text)
      .join(''),
  ).toBe('Here is the ');
  expect(choices().at(-1)).toMatchObject({ finishReason: 'stop', stopReason: 'end of it' });
  expect(outputs.numUnfinishedRequests).toBe(0);
});

test('what is held back for a stop string is told at an end for another reason, and a core that has ended is told nothing', () => {
  const { step, choices } = scene(2, { stop: ['dead end'] });
  const ids = encode('It is a dead');
  for (const handle of [1, 2]) for (const id of ids.slice(0, -1)) step(output(handle, [id], null));
  expect(step(output(1, [ids.at(-1)!], 'length')).toAbort).toEqual([]);
  const text = (index: number) =>
    choices()
      .filter((each) => each.index === index)
      .map((each) => each.text)
      .join('');
  expect(text(0)).toBe('It is a dead');
  const rest = encode(' end');
  step(output(2, [ids.at(-1)!], null));
  for (const [i, id] of rest.entries()) {
    const { toAbort } = step(output(2, [id], i === rest.length - 1 ? 'length' : null));
    expect(toAbort).toEqual([]);
  }
  expect(text(1)).toBe('It is a ');
  expect(choices().at(-1)).toMatchObject({ finishReason: 'stop', stopReason: 'dead end' });
});

test('log probabilities of the prompt are those of one copy, told once', () => {
  const { step, told } = scene(2, { promptLogprobs: 0 });
  const first = { newPromptLogprobs: promptLogprobs(301) };
  step(output(1, [], null, first), output(2, [], null, first));
  const second = { newPromptLogprobs: promptLogprobs(302) };
  step(output(1, [400], null, second), output(2, [400], null, second));
  step(output(1, [401], 'length'), output(2, [401], 'length'));
  const positions = told.map((each) => each.promptLogprobs?.map((position) => position?.[0]?.tokenId ?? null) ?? null);
  expect(positions).toEqual([[null, 301, 302], null, null, null]);
});

test('final answers come together, in their order', () => {
  const { step, told } = scene(3, { outputKind: 'final-only' });
  step(output(3, [400], 'length'), output(1, [400], null), output(2, [400], null));
  step(output(2, [401], 'length'));
  expect(told).toEqual([]);
  step(output(1, [401], 'length'));
  expect(told.map((each) => each.outputs.map(({ index, tokenIds }) => [index, tokenIds.length]))).toEqual([
    [
      [0, 2],
      [1, 2],
      [2, 1],
    ],
  ]);
});
