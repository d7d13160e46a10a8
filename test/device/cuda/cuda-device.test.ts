import { afterAll, expect, test } from 'bun:test';
import { createDevice } from '../../../src/device/create-device.ts';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { CUDA_DEVICE } from './device-under-test.ts';

const device = await createDevice(CUDA_DEVICE);
afterAll(() => device.close());

test('a library that is not there is named in one sentence', () => {
  expect(() => new CudaRuntime(['libcudart.so.0'])).toThrow(
    /^no CUDA device: libcudart can't be opened \(.*libcudart\.so\.0/,
  );
});

test('memory is reported by purpose, reads as zeros when it is used again, and is refused by name', () => {
  const staged = device.staging(64, 'test');
  new Int32Array(staged.host).fill(7);
  const first = device.alloc(64, 'first');
  staged.upload();
  device.ops.copy_bytes(staged.ptr, first, 64);
  expect(device.memoryReport()).toMatchObject({ first: 64, test: 64 });
  device.free(first);
  expect(device.memoryReport()).not.toContainKey('first');

  const second = device.alloc(64, 'second');
  device.ops.copy_bytes(second, staged.ptr, 64);
  staged.download();
  device.wait(device.record());
  expect([...new Int32Array(staged.host)]).toEqual(new Array(16).fill(0));
  expect(() => device.alloc(2 ** 40, 'everything')).toThrow('out of memory: no 1048576.0 MiB for everything');
  expect(() => device.free(12345)).toThrow('not allocated here');
});

test('an event is reached only when its work is done', () => {
  const staged = device.staging(4, 'test');
  staged.upload();
  staged.download();
  const event = device.record();
  expect(device.query(event)).toBe(false);
  device.wait(event);
  expect(device.query(event)).toBe(true);
});

test('arguments that can not be right are refused with names and values', () => {
  expect(() => device.ops.rms_norm(0, 0, 0, 1, 16, 1e-6)).toThrow(
    'rms_norm: a pointer is null (x=0, weight=0, out=0, rows=1, n=16',
  );
  expect(() => device.ops.linear(1, 4, 1, 0, 0, 1, 4, 1, 4, 4)).toThrow('a data type that this kernel does not know');
});

test('graphs are in the memory report, steps are filled up to a capture size, and without sizes there are neither', async () => {
  const graphs = await createDevice(CUDA_DEVICE, { replaySizes: [1, 4] });
  const eager = await createDevice(CUDA_DEVICE, { replaySizes: [] });
  expect([1, 2, 4, 5].map((numSeqs) => graphs.replaySize(numSeqs))).toEqual([1, 4, 4, null]);
  expect(eager.replaySize(1)).toBeNull();
  for (const each of [graphs, eager]) {
    const x = each.staging(64, 'test');
    new Float32Array(x.host).fill(2);
    x.upload();
    // The first is run call by call and captured, the second launched as a graph.
    for (let i = 0; i < 2; i++) each.replayable(() => each.ops.soft_cap(x.ptr, 16, 1e6));
    x.download();
    each.wait(each.record());
    expect(new Float32Array(x.host)[0]).toBeCloseTo(2, 4);
  }
  expect(graphs.memoryReport()['CUDA graphs']).toBeGreaterThan(0);
  expect(eager.memoryReport()).not.toContainKey('CUDA graphs');
  graphs.close();
  eager.close();
});
