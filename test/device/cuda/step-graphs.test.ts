import { ptr } from 'bun:ffi';
import { afterAll, describe, expect, spyOn, test } from 'bun:test';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { StepGraphs } from '../../../src/device/cuda/step-graphs.ts';
import type { Ops } from '../../../src/device/device.ts';
import { configureLogging } from '../../../src/logging/logger.ts';
import { CUDA_DEVICE, librariesUnderTest } from './device-under-test.ts';

const { cudart } = await librariesUnderTest();
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { functions } = runtime;
afterAll(() => functions.cudaStreamDestroy(stream));

/** A device whose only op fills memory: `copy_bytes(value, address, bytes)`. */
const fill = (value: number, address: number, bytes: number) =>
  runtime.check('cudaMemsetAsync', functions.cudaMemsetAsync(address, value, bytes, stream));
const ops = { copy_bytes: fill } as unknown as Ops;

const bytes = runtime.malloc(256);
const host = new Uint8Array(256);

function contents(): Uint8Array {
  runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(ptr(host), bytes, host.length, 2, stream));
  return host.slice();
}

function counted<Result>(action: () => Result): { result: Result; launches: number; captures: number } {
  const launch = spyOn(functions, 'cudaGraphLaunch');
  const capture = spyOn(functions, 'cudaGraphInstantiate');
  try {
    return { result: action(), launches: launch.mock.calls.length, captures: capture.mock.calls.length };
  } finally {
    launch.mockRestore();
    capture.mockRestore();
  }
}

describe('steps as graphs', () => {
  test('a step is captured when it first occurs and launched when it occurs again, with the same effect', () => {
    const graphs = new StepGraphs(runtime, stream, ops, 4);
    const step = (value: number) =>
      graphs.run(() => {
        graphs.ops.copy_bytes(value, bytes, 256);
        graphs.ops.copy_bytes(value + 1, bytes + 64, 64);
        return value;
      });
    const first = counted(() => step(5));
    expect(first).toEqual({ result: 5, launches: 0, captures: 1 });
    const eager = contents();
    graphs.ops.copy_bytes(9, bytes, 256);
    const second = counted(() => step(5));
    expect(second).toEqual({ result: 5, launches: 1, captures: 0 });
    expect(contents()).toEqual(eager);
    expect([eager[0], eager[64], eager[128]]).toEqual([5, 6, 5]);
    // A driver may have had room for one as small as this.
    if (CUDA_DEVICE === 'cuda-emulation') expect(graphs.bytes).toBeGreaterThan(0);
    graphs.clear();
    expect(graphs.bytes).toBe(0);
  });

  test('a step that differs in one argument is another one', () => {
    const graphs = new StepGraphs(runtime, stream, ops, 4);
    for (const value of [1, 2, 1]) {
      graphs.run(() => graphs.ops.copy_bytes(value, bytes, 256));
      expect(contents()[255]).toBe(value);
    }
    graphs.clear();
  });

  test('the graph that was used longest ago makes room', () => {
    const graphs = new StepGraphs(runtime, stream, ops, 2);
    const step = (value: number) => counted(() => graphs.run(() => graphs.ops.copy_bytes(value, bytes, 256))).launches;
    expect([1, 2, 1, 3].map(step)).toEqual([0, 0, 1, 0]);
    expect([1, 3].map(step)).toEqual([1, 1]);
    expect(step(2)).toBe(0);
    expect(contents()[0]).toBe(2);
    graphs.clear();
  });

  test('which becomes the new one where their nodes are of the same kind, and is made anew where not', () => {
    const update = spyOn(functions, 'cudaGraphExecUpdate');
    const graphs = new StepGraphs(runtime, stream, ops, 1);
    const step = (...values: number[]) =>
      counted(() =>
        graphs.run(() => {
          for (const value of values) graphs.ops.copy_bytes(value, bytes, 256);
        }),
      );
    expect(step(1)).toMatchObject({ launches: 0, captures: 1 });
    const { bytes: memory } = graphs;
    // Its launch waits while the graph is updated: it must do what it was to do.
    graphs.ops.copy_bytes(9, bytes, 256);
    expect(step(1)).toMatchObject({ launches: 1, captures: 0 });
    const before = contents();
    expect(step(2)).toMatchObject({ launches: 0, captures: 0 });
    expect(graphs.bytes).toBe(memory);
    expect(before[0]).toBe(1);
    graphs.ops.copy_bytes(9, bytes, 256);
    expect(step(2)).toMatchObject({ launches: 1 });
    expect(contents()[0]).toBe(2);
    expect(step(3, 4)).toMatchObject({ launches: 0, captures: 1 });
    expect(update.mock.results.map(({ value }) => value)).toEqual([0, 910]);
    expect(step(3, 4)).toMatchObject({ launches: 1 });
    graphs.clear();
    update.mockRestore();
  });

  test('after a capture that fails, steps are enqueued op by op, and the log has one line', () => {
    const lines: string[] = [];
    const before = configureLogging({ write: (line) => lines.push(line), format: 'text' });
    try {
      // Memory can't be asked for while a stream captures.
      const unsafe = { copy_bytes: (value: number) => void runtime.malloc(value) } as unknown as Ops;
      const graphs = new StepGraphs(runtime, stream, unsafe, 2);
      for (let i = 0; i < 3; i++) graphs.run(() => graphs.ops.copy_bytes(256));
      const after = new StepGraphs(runtime, stream, ops, 2);
      expect(counted(() => after.run(() => after.ops.copy_bytes(3, bytes, 256))).captures).toBe(1);
      expect(contents()[0]).toBe(3);
      after.clear();
    } finally {
      configureLogging(before);
    }
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('No more CUDA graphs are made');
    expect(lines[0]).toContain('cudaErrorStreamCaptureUnsupported');
  });

  test('an op that throws is not captured, and the stream goes on', () => {
    const failing = {
      copy_bytes: () => {
        throw new Error('refused');
      },
    } as unknown as Ops;
    const graphs = new StepGraphs(runtime, stream, failing, 2);
    expect(() => graphs.run(() => graphs.ops.copy_bytes(1))).toThrow('refused');
    fill(7, bytes, 256);
    expect(contents()[0]).toBe(7);
  });
});
