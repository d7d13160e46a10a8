/**
 * Run as a program, with names of calls and codes ("cudaMalloc=2"): makes the first such call fail, each on an emulated device of its own,
 * while the device is opened, works and is closed. Prints a line of JSON for each: what was thrown, or null. The failures are given to the
 * emulation in the file BAO_CUDA_EMULATION_FAIL_FILE.
 */
import { ptr } from 'bun:ffi';
import { writeFileSync } from 'node:fs';
import { createDevice } from '../../../src/device/create-device.ts';
import type { Device } from '../../../src/device/device.ts';
import { DTYPE_CODES } from '../../../src/device/dtype.ts';

const file = process.env.BAO_CUDA_EMULATION_FAIL_FILE!;
/** More than a product by a kernel takes. */
const ROWS = 40;
const weights = new Float32Array(64).fill(1);

/** Makes each call that a model runner's work makes. */
function work(device: Device): void {
  const [x, out] = [device.staging(ROWS * 256, 'x'), device.staging(256, 'out')];
  const weight = device.uploadVector(weights, 'weight');
  const source = { ptr: ptr(weights), dtype: 'float32', rows: 1, cols: 64, ld: 64 } as const;
  const matrix = device.packLinear([source], 'float32', 'matrix');
  x.upload();
  for (let step = 0; step < 2; step++) {
    device.replayable(() => device.ops.rms_norm(x.ptr, weight, out.ptr, 1, 64, 1e-6));
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
}

/** What was thrown on a device where the call fails. */
async function outcome(injection: string, index: number): Promise<string | null> {
  const [call, code] = injection.split('=');
  writeFileSync(file, `${call}@1=${code}\n`);
  let device: Device | null = null;
  try {
    device = await createDevice('cuda-emulation', {
      coreIndex: index,
      activationDtype: 'float32',
      replaySizes: [1],
    });
    work(device);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    device?.close();
  }
}

for (const [index, injection] of process.argv.slice(2).entries())
  console.log(JSON.stringify(await outcome(injection, index)));
