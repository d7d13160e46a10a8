import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import { type CpuDevice, createCpuDevice } from '../../src/device/cpu-device.ts';
import { type CpuIsa, ISA_CODES, openCpuLibrary } from '../../src/device/cpu-library.ts';
import type { CacheDType, FloatDType } from '../../src/device/dtype.ts';

const libraryPath = await ensureCpuLibrary({ quiet: true, sets: 'runnable' });

export const FLOAT_DTYPES: readonly FloatDType[] = ['float32', 'bfloat16', 'float16'];
export const CACHE_DTYPES: readonly CacheDType[] = [...FLOAT_DTYPES, 'fp8_e4m3'];

export function openDevice(threads = 2, isa?: CpuIsa): CpuDevice {
  return createCpuDevice({ libraryPath, threads, isa });
}

/** Whether float16 and, where there is no AMX, 8-bit floats and bfloat16 are multiplied as halves. */
export function multipliesHalves(isa: CpuIsa): boolean {
  return ISA_CODES[isa] >= ISA_CODES.avx512_fp16;
}

/** Whether 8-bit floats and bfloat16 are multiplied in matrix registers, x as bfloat16. */
export function multipliesMatrices(isa: CpuIsa): boolean {
  return ISA_CODES[isa] >= ISA_CODES.avx512_amx;
}

/** The highest set whose products are of float32, whatever the weights: for what must have the same bits as they, or nearly so. */
export const FLOAT32_ISA: CpuIsa = 'avx512_vbmi';

/** The instruction sets that this machine runs, portable first. */
export function availableIsas(): CpuIsa[] {
  const highest = openCpuLibrary(libraryPath).bao_detect_isa();
  return (Object.keys(ISA_CODES) as CpuIsa[]).filter((isa) => ISA_CODES[isa] <= highest);
}

/** Numbers in [-1, 1) that are the same in every run (mulberry32). */
export function randomSource(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

export function randomFloats(length: number, seed: number): Float32Array {
  const next = randomSource(seed);
  return Float32Array.from({ length }, next);
}

/** A device buffer with its host views. */
export interface Buffer {
  ptr: number;
  f32: Float32Array;
  i32: Int32Array;
  u16: Uint16Array;
}

export function buffer(device: CpuDevice, bytes: number): Buffer {
  const staging = device.staging(Math.max(4, bytes + (bytes % 4)), 'test');
  return {
    ptr: staging.ptr,
    f32: new Float32Array(staging.host),
    i32: new Int32Array(staging.host),
    u16: new Uint16Array(staging.host),
  };
}

export function floats(device: CpuDevice, values: ArrayLike<number>): Buffer {
  const result = buffer(device, values.length * 4);
  result.f32.set(values);
  return result;
}

export function ints(device: CpuDevice, values: ArrayLike<number>): Buffer {
  const result = buffer(device, values.length * 4);
  result.i32.set(values);
  return result;
}

/** What `device` makes of values in a storage type, as numbers again. */
export function rounded(values: ArrayLike<number>, dtype: CacheDType): Float32Array {
  const source = Float32Array.from(values);
  if (dtype === 'fp8_e4m3') return source.map(roundToE4M3);
  if (dtype === 'float32') return source;
  if (dtype === 'float16') return Float32Array.from(new Float16Array(source));
  const bits = new Uint32Array(source.buffer);
  for (let i = 0; i < bits.length; i++) bits[i] = roundToBf16(bits[i]!);
  return source;
}

/** Values in a storage type, as a checkpoint holds them. */
export function stored(device: CpuDevice, values: ArrayLike<number>, dtype: FloatDType): Buffer {
  const exact = rounded(values, dtype);
  if (dtype === 'float32') return floats(device, exact);
  const result = buffer(device, values.length * 2);
  if (dtype === 'float16') new Float16Array(result.u16.buffer, 0, values.length).set(exact);
  else result.u16.set(new Uint32Array(exact.buffer).map((bits) => bits >>> 16));
  return result;
}

/** Nearest bfloat16, ties to even, as float32 bits. Finite values only. */
function roundToBf16(bits: number): number {
  const lower = bits & 0xffff;
  const upper = bits >>> 16;
  const up = lower > 0x8000 || (lower === 0x8000 && upper % 2 === 1);
  return ((upper + (up ? 1 : 0)) << 16) >>> 0;
}

/** Nearest number of OCP E4M3, ties to even, 448 at the most. */
function roundToE4M3(value: number): number {
  const magnitude = Math.min(448, Math.abs(value));
  const step = 2 ** (Math.max(-6, Math.floor(Math.log2(magnitude))) - 3);
  const steps = Math.round(magnitude / step);
  const tie = steps - magnitude / step === 0.5 && steps % 2 === 1;
  return Math.sign(value) * (tie ? steps - 1 : steps) * step;
}

/** A copy of `length` floats at an address of the device. */
export function readFloats(ptr: number, length: number): Float32Array {
  return new Float32Array(toArrayBuffer(ptr as Pointer, 0, length * 4)).slice();
}

export function finish(device: CpuDevice): void {
  device.wait(device.record());
}

/** The largest |a - b|, NaN where any is. */
export function maxError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, not ${expected.length}`);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    if (Number.isNaN(error)) return Number.NaN;
    worst = Math.max(worst, error);
  }
  return worst;
}
