import { afterAll, expect, spyOn, test } from 'bun:test';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { StreamEvents } from '../../../src/device/cuda/stream-events.ts';
import { librariesUnderTest } from './device-under-test.ts';

const { cudart } = await librariesUnderTest();
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { functions } = runtime;
afterAll(() => functions.cudaStreamDestroy(stream));

test('events are used again once they are reached, and all of them are destroyed, one that could not be recorded too', () => {
  const created = spyOn(runtime, 'createEvent');
  const destroyed = spyOn(functions, 'cudaEventDestroy');
  const events = new StreamEvents(runtime, stream);
  for (let i = 0; i < 5; i++) events.wait(events.record());
  expect(created).toHaveBeenCalledTimes(1);
  const [first, second] = [events.record(), events.record()];
  events.wait(second);
  expect(events.query(first)).toBe(true);
  const refusing = spyOn(functions, 'cudaEventRecord').mockReturnValue(719);
  expect(() => events.record()).toThrow('cudaEventRecord: cudaErrorLaunchFailure (719)');
  refusing.mockRestore();
  events.close();
  const handles = created.mock.results.map(({ value }) => value as number);
  expect(destroyed.mock.calls.map(([handle]) => handle).toSorted()).toEqual(handles.toSorted());
  created.mockRestore();
  destroyed.mockRestore();
});
