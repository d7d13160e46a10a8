import { expect, test } from 'bun:test';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { InputProcessor } from '../../src/engine/input-processor.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';

const config = await new EngineArgs({ model: 'demo', maxModelLen: 64 }).createEngineConfig();
const request = (promptTokenIds: number[], n = 1, maxTokens = 16) => ({
  requestId: 'r',
  promptTokenIds: Int32Array.from(promptTokenIds),
  params: { ...DEFAULT_SAMPLING_PARAMS, n, maxTokens, seed: 5 },
});

test('each of n sequences is a request of its own, told apart by its place', () => {
  const sequences = new InputProcessor(config).process(request([300, 301], 3));
  expect(sequences.map(({ sequenceIndex }) => sequenceIndex)).toEqual([0, 1, 2]);
  expect(new Set(sequences.map(({ handle }) => handle)).size).toBe(3);
  expect(sequences.map(({ samplingParams }) => [samplingParams.n, samplingParams.seed])).toEqual(
    new Array(3).fill([1, 5]),
  );
});

test('no more tokens are asked for than there is room for', () => {
  const inputs = new InputProcessor(config);
  const maxTokens = (promptLength: number, wanted: number) =>
    inputs.process(request(new Array(promptLength).fill(300), 1, wanted))[0]!.samplingParams.maxTokens;
  expect([maxTokens(60, 16), maxTokens(48, 16), maxTokens(63, 16)]).toEqual([4, 16, 1]);
});

test('a prompt that the model can not read is refused', () => {
  const inputs = new InputProcessor(config);
  const { vocabSize } = config.model.hf;
  expect(() => inputs.process(request([]))).toThrow('cannot be empty');
  expect(() => inputs.process(request(new Array(64).fill(300)))).toThrow('maximum context length is 64 tokens');
  for (const id of [-1, vocabSize]) expect(() => inputs.process(request([300, id]))).toThrow(`Token id ${id}`);
  expect(() => inputs.process(request([0, vocabSize - 1]))).not.toThrow();
});
