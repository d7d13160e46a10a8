/**
 * Run as a program: brings a device of BAO_CUDA_EMULATION_MEMORY bytes to the end of its memory in several ways, and prints a line of JSON for each (see Outcome).
 * Calls that are to fail are given to the emulation in the file BAO_CUDA_EMULATION_FAIL_FILE.
 */
import { ptr } from 'bun:ffi';
import { writeFileSync } from 'node:fs';
import { createDevice } from '../../../src/device/create-device.ts';
import type { Device } from '../../../src/device/device.ts';
import { QUANTIZATION_CODES } from '../../../src/device/quantization-scheme.ts';

export interface Outcome {
  name: string;
  /** Name of the error that was thrown; null: none was. */
  thrown: string | null;
  /** Bytes that the device reports and those that it has left, after less before. */
  heldBytes: number;
  takenBytes: number;
  /** What the way itself has to tell. */
  value?: unknown;
}

const MIB = 1 << 20;
const [ROWS, COLS] = [2048, 1024];
const weights = new Float32Array(ROWS * COLS).fill(0.5);
const matrix = { ptr: ptr(weights), dtype: 'float32', rows: ROWS, cols: COLS, ld: COLS } as const;
const bytes8 = new Uint8Array(ROWS * COLS);
const scales = new Float32Array(ROWS * (COLS / 128)).fill(1);

const total = (device: Device) => Object.values(device.memoryReport()).reduce((sum, bytes) => sum + bytes, 0);

/** Leaves so many bytes of the device. */
function fill(device: Device, leave: number): void {
  device.alloc(device.memoryInfo().freeBytes - leave, 'filler');
}

async function report(name: string, leave: number, run: (device: Device) => unknown): Promise<void> {
  const device = await createDevice('cuda-emulation', { activationDtype: 'float16', replaySizes: [1] });
  fill(device, leave);
  const before = { held: total(device), free: device.memoryInfo().freeBytes };
  let thrown: string | null = null;
  let value: unknown;
  try {
    value = run(device);
  } catch (error) {
    thrown = (error as Error).name;
  }
  const outcome: Outcome = {
    ...{ name, thrown, value },
    heldBytes: total(device) - before.held,
    takenBytes: before.free - device.memoryInfo().freeBytes,
  };
  console.log(JSON.stringify(outcome));
  device.close();
}

function failNext(calls: string): void {
  writeFileSync(process.env.BAO_CUDA_EMULATION_FAIL_FILE!, `${calls}\n`);
}

// Each weight has room, and what it is converted from has none.
await report('a weight', 6 * MIB, (device) => device.packLinear([matrix], 'float16', 'weights'));
await report('a quantized weight', 4 * MIB, (device) => device.packQuantizedLinear([matrix], 'int8', 'weights'));
await report('a weight of fp8', 3 * MIB, (device) =>
  device.packQuantizedLinear([{ ...matrix, ptr: ptr(bytes8), dtype: 'fp8_e4m3', scales }], 'fp8', 'weights'),
);
await report('a vector', 12 * MIB, (device) => device.uploadVector(weights, 'weights'));
await report('pinned memory', 8 * MIB, (device) => {
  failNext('cudaHostAlloc@1=2,cudaHostAlloc@2=2');
  device.staging(2 * MIB, 'staging');
});
await report('small blocks that were freed give way to a large one', 8 * MIB, (device) => {
  const blocks = Array.from({ length: 6 }, () => device.alloc(MIB, 'small'));
  const pairs = Array.from({ length: 2 }, () => device.staging(MIB, 'pair'));
  for (const block of blocks) device.free(block);
  for (const pair of pairs) pair.free();
  device.free(device.alloc(7 * MIB, 'large'));
});
await report('graphs give way to memory that is needed', 4 * MIB, (device) => {
  const x = device.alloc(1024, 'x');
  const step = () => device.replayable(() => device.ops.soft_cap(x, 16, 30));
  for (let i = 0; i < 2; i++) step();
  const graphs = device.memoryReport()['CUDA graphs'];
  device.free(device.alloc(device.memoryInfo().freeBytes + 1, 'large'));
  step();
  device.free(x);
  return { graphs, left: device.memoryReport()['CUDA graphs'] ?? 0 };
});
await report('a workspace that can not grow', 8 * MIB, (device) => {
  const code = QUANTIZATION_CODES.int8;
  const weight = device.packQuantizedLinear([{ ...matrix, rows: 16 }], 'int8', 'weights');
  const [x, out] = [device.alloc(COLS * 2, 'x'), device.alloc(16 * 2, 'out')];
  const multiply = (rows: number) => device.ops.quantized_linear(x, COLS, weight.ptr, code, 0, out, 16, rows, 16, COLS);
  const refused: string[] = [];
  for (let i = 0; i < 2; i++) {
    try {
      device.rehearse(() => multiply(1 << 16));
    } catch (error) {
      refused.push((error as Error).name);
    }
  }
  multiply(1);
  device.wait(device.record());
  for (const each of [weight.ptr, x, out]) device.free(each);
  return refused;
});
