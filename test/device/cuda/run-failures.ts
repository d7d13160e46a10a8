/**
 * Run as a program, with names of calls and codes ("cudaMalloc=2", "cudaMalloc@2=2", or some with commas between): makes the first such call, or that of this number, fail, each on two emulated devices of its own: on one while it is
 * opened, works and is closed, on the other while the bindings are used that no device uses. Prints a line of JSON for each (see Outcome). The failures are
 * given to the emulation in the file BAO_CUDA_EMULATION_FAIL_FILE.
 */
import { ptr } from 'bun:ffi';
import { writeFileSync } from 'node:fs';
import { ensureCudaEmulation } from '../../../scripts/build-cuda.ts';
import { createDevice } from '../../../src/device/create-device.ts';
import { Cublas } from '../../../src/device/cuda/cublas.ts';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { Nccl } from '../../../src/device/cuda/nccl.ts';
import type { Device } from '../../../src/device/device.ts';
import { DTYPE_CODES } from '../../../src/device/dtype.ts';

/** What became of a failure. */
export interface Outcome {
  /** What was thrown, or null. */
  thrown: string | null;
  /** Bytes of device memory that are held after everything was closed. */
  leakedBytes: number;
}

const file = process.env.BAO_CUDA_EMULATION_FAIL_FILE!;
/** More than a product by a kernel takes. */
const ROWS = 40;
const weights = new Float32Array(64).fill(1);
const libraries = await ensureCudaEmulation({ quiet: true });

/** Makes each call that a model runner's work makes. */
function work(device: Device): void {
  const [x, out] = [device.staging(ROWS * 256, 'x'), device.staging(256, 'out')];
  const weight = device.uploadVector(weights, 'weight');
  const source = { ptr: ptr(weights), dtype: 'float32', rows: 1, cols: 64, ld: 64 } as const;
  const matrix = device.packLinear([source], 'float32', 'matrix');
  x.upload();
  // The last one takes over the graph of the first two, of which one is kept for each of four.
  for (const rows of [1, 1, 2, 3, 4, 5]) {
    device.replayable(() => device.ops.rms_norm(x.ptr, weight, x.ptr, rows, 64, 1e-6));
  }
  device.ops.linear(x.ptr, 64, matrix.ptr, DTYPE_CODES.float32, 0, out.ptr, 1, ROWS, 1, 64);
  device.ops.linear(x.ptr, 64, matrix.ptr, DTYPE_CODES.float32, weight, out.ptr, 1, ROWS, 1, 64);
  out.download();
  const [first, second] = [device.record(), device.record()];
  device.query(first);
  device.wait(second);
  device.memoryInfo();
  out.free();
  device.free(device.alloc(2 << 20, 'large'));
  device.staging(2 << 20, 'large').free();
}

async function useDevice(index: number): Promise<void> {
  let device: Device | null = null;
  try {
    device = await createDevice('cuda-emulation', { coreIndex: index, activationDtype: 'float32', replaySizes: [1] });
    work(device);
  } finally {
    device?.close();
  }
}

/** Makes the calls that no device makes yet: batches of products, copies between devices, communication (of one rank with itself). */
function useBindings(runtime: CudaRuntime, index: number, peer: number): void {
  runtime.selectDevice(index);
  const stream = runtime.createStream();
  const memory = runtime.malloc(256);
  const nccl = new Nccl(libraries.nccl);
  const comm = nccl.communicator(nccl.uniqueId(), 0, 1, stream);
  const cublas = new Cublas(libraries.cublas, stream, { ptr: memory, bytes: 256 });
  try {
    cublas.batchedLinear('float32', 'float32', [2, 2, 2], 2, [memory, 4], [memory, 4], [memory, 4]);
    runtime.canAccessPeer(index, peer);
    runtime.enablePeerAccess(peer);
    runtime.copyPeer([memory, index], [memory, index], 64, stream);
    comm.allReduce(memory, memory, 4, 'float32');
    comm.allGather(memory, memory, 4, 'float32');
    comm.reduceScatter(memory, memory, 4, 'float32');
    nccl.group(() => {
      comm.send(memory, 4, 'float32', 0);
      comm.receive(memory + 64, 4, 'float32', 0);
    });
    runtime.check('cudaStreamSynchronize', runtime.functions.cudaStreamSynchronize(stream));
    comm.close();
  } finally {
    cublas.close();
    runtime.functions.cudaStreamDestroy(stream);
    runtime.functions.cudaFree(memory);
  }
}

async function outcome(injection: string, index: number): Promise<Outcome> {
  writeFileSync(file, `${injection.replaceAll(/(?<!@\d+)=/g, '@1=')}\n`);
  let thrown: string | null = null;
  try {
    await useDevice(index);
    useBindings(new CudaRuntime(libraries.cudart), index + 1, index);
  } catch (error) {
    thrown = error instanceof Error ? error.message : String(error);
  }
  let leakedBytes = 0;
  try {
    const runtime = new CudaRuntime(libraries.cudart);
    runtime.selectDevice(index);
    const { totalBytes, freeBytes } = runtime.memoryInfo();
    leakedBytes = totalBytes - freeBytes;
  } catch {
    // A device that failed does not say.
  }
  return { thrown, leakedBytes };
}

for (const [i, injection] of process.argv.slice(2).entries())
  console.log(JSON.stringify(await outcome(injection, 2 * i)));
