/**
 * Run as a program, with names of the kernels of faults.cu: runs each on an emulated device of its own, since a device that faulted stays
 * faulted, and prints what the synchronization gives, a line for each. The emulation's reports go to stderr. With "mended" first, the right
 * kernels run.
 */
import { dlopen, type Pointer, ptr } from 'bun:ffi';
import { join } from 'node:path';
import { ensureEmulatedLibrary } from '../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';

const [how, ...names] = process.argv.slice(2);
const { cudart, kernels } = await ensureEmulatedLibrary(join(import.meta.dir, 'faults.cu'), true);
const runtime = new CudaRuntime(cudart);
const { symbols } = dlopen(kernels, {
  probe_fault: { args: ['ptr', 'cstring', 'ptr', 'ptr', 'i32'], returns: 'i32' },
});
const zeros = new Float32Array(64);
names.forEach((name, device) => {
  runtime.selectDevice(device);
  const stream = runtime.createStream();
  const [data, out] = [0, 0].map(() => {
    const address = runtime.malloc(zeros.byteLength);
    const { cudaMemcpyAsync } = runtime.functions;
    runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(address, ptr(zeros), zeros.byteLength, 1, stream));
    return address as Pointer;
  });
  const text = Buffer.from(`${name}\0`);
  const code = symbols.probe_fault(stream as Pointer, ptr(text), data!, out!, how === 'mended' ? 1 : 0);
  console.log(code === 0 ? runtime.functions.cudaStreamSynchronize(stream) : `launch ${code}`);
});
