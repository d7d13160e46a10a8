/** NCCL with one rank, which a single device can have: on a machine with a GPU, what the real library makes of the bindings. */
import { ptr } from 'bun:ffi';
import { expect, test } from 'bun:test';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { Nccl } from '../../../src/device/cuda/nccl.ts';
import { CUDA_DEVICE, librariesUnderTest } from './device-under-test.ts';

const { cudart, nccl: paths } = await librariesUnderTest();
const runtime = new CudaRuntime(cudart);

/** Null where a machine with a GPU has no NCCL, which nothing but tests uses. */
function openNccl(): Nccl | null {
  try {
    return new Nccl(paths);
  } catch (error) {
    if (CUDA_DEVICE === 'cuda') return null;
    throw error;
  }
}

const nccl = openNccl();

test.skipIf(nccl === null)('one rank communicates with itself', () => {
  const { functions } = runtime;
  runtime.selectDevice(0);
  const stream = runtime.createStream();
  const comm = nccl!.communicator(nccl!.uniqueId(), 0, 1, stream);
  const values = Float32Array.of(1, -2, 3.5, 4);
  const results = new Float32Array(4 * values.length);
  const [from, to] = [runtime.malloc(values.byteLength), runtime.malloc(results.byteLength)];
  const copy = (target: number, source: number, bytes: number, kind: number) =>
    runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(target, source, bytes, kind, stream));
  copy(from, ptr(values), values.byteLength, 1);
  const place = (i: number) => to + i * values.byteLength;
  comm.allReduce(from, place(0), values.length, 'float32');
  comm.allGather(from, place(1), values.length, 'float32');
  comm.reduceScatter(from, place(2), values.length, 'float32');
  nccl!.group(() => {
    comm.send(from, values.length, 'float32', 0);
    comm.receive(place(3), values.length, 'float32', 0);
  });
  copy(ptr(results), to, results.byteLength, 2);
  runtime.check('cudaStreamSynchronize', functions.cudaStreamSynchronize(stream));
  expect([...results]).toEqual([0, 1, 2, 3].flatMap(() => [...values]));
  comm.close();
  for (const address of [from, to]) functions.cudaFree(address);
  functions.cudaStreamDestroy(stream);
});
