/**
 * Run as a program, with an exported probe's name and a number: makes one mistake on the emulation and prints the code that the
 * synchronization gives, then what the first block wrote. A process of its own, since a device that faulted stays faulted.
 */
import { dlopen, type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import { join } from 'node:path';
import { ensureEmulatedLibrary } from '../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';

const { cudart, kernels } = await ensureEmulatedLibrary(join(import.meta.dir, 'probe.cu'), false);
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const [data, out] = [runtime.malloc(64 * 4), runtime.malloc(64 * 4)];
const zeros = new Float32Array(64);
runtime.check('cudaMemcpyAsync', runtime.functions.cudaMemcpyAsync(data, ptr(zeros), 256, 1, stream));
const { symbols } = dlopen(kernels, {
  probe_mistake: { args: ['ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
});
runtime.check(
  'launch',
  symbols.probe_mistake(stream as Pointer, data as Pointer, out as Pointer, Number(process.argv[2])),
);
console.log(runtime.functions.cudaStreamSynchronize(stream));
console.log(String([...new Float32Array(toArrayBuffer(out as Pointer, 0, 256))]));
