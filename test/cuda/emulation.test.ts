import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { ensureEmulatedLibrary } from '../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';

const { cudart } = await ensureEmulatedLibrary(join(import.meta.dir, 'probe.cu'), false);
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { cudaMemcpyAsync, cudaStreamSynchronize } = runtime.functions;
const pointer = (address: number) => address as Pointer;

test('work waits for a synchronization: without one its results are not there', () => {
  const [from, to] = [runtime.hostAlloc(64), runtime.malloc(64)];
  const host = new Int32Array(toArrayBuffer(pointer(from), 0, 64));
  host.fill(7);
  const back = runtime.hostAlloc(64);
  cudaMemcpyAsync(to, from, 64, 1, stream);
  cudaMemcpyAsync(back, to, 64, 2, stream);
  const result = new Int32Array(toArrayBuffer(pointer(back), 0, 64));
  expect(result[0]).toBe(0);
  // Pinned memory is read when the copy is carried out, so what is written before that is what is copied.
  host.fill(8);
  expect(cudaStreamSynchronize(stream)).toBe(0);
  expect(result[0]).toBe(8);
});

/** Runs one mistake of probe.cu in a process of its own. */
function make(mistake: number, order = 'forward') {
  const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'probe.ts'), String(mistake)], {
    env: { ...process.env, BAO_CUDA_EMULATION_ORDER: order },
  });
  const [code, values] = child.stdout.toString().split('\n');
  return { code: Number(code), values: values!.split(',').map(Number), report: child.stderr.toString() };
}

describe('mistakes that the emulation shows', () => {
  test.each([
    [0, 'thread (3, 0, 0): access of 4 bytes'],
    [1, 'thread (0, 0, 0): misaligned access of 4 bytes'],
    [2, 'thread (5, 0, 0): __shfl_xor_sync with a mask that names lanes which are gone'],
    [3, 'thread (1, 0, 0): __shfl_sync with a mask that leaves out the calling lane'],
    [7, 'thread (0, 0, 0): __shfl_xor_sync from lane 16, which is not in the mask'],
  ])('mistake %i is reported with kernel, block and thread', (mistake, text) => {
    const { code, report } = make(mistake);
    expect(code).toBe(700);
    expect(report).toContain(`kernel probe_mistake, block (0, 0, 0), ${text}`);
  });

  test('a read of cp.async data before the wait, or of shared memory that nobody wrote, gives NaN', () => {
    expect(make(4).values[0]).toBeNaN();
    expect(make(5).values[0]).toBeNaN();
  });

  test('a missing __syncthreads shows in one of the two orders of threads', () => {
    const expected = Array.from({ length: 64 }, (_, i) => 63 - i);
    const results = ['forward', 'reverse'].map((order) => make(6, order).values);
    expect(results.every((values) => values.join() === expected.join())).toBe(false);
  });
});
