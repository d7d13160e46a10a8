import { ptr } from 'bun:ffi';
import type { Device, StagingBuffer } from '../../../src/device/device.ts';
import { DTYPE_CODES, type FloatDType } from '../../../src/device/dtype.ts';
import { MemoryScope } from '../../../src/device/memory-scope.ts';
import { OPS, type OpName } from '../../../src/device/ops.ts';
import type { QuantizationScheme } from '../../../src/device/quantization-scheme.ts';
import { rounded } from '../harness.ts';

/** A buffer that every device gets in its own types. */
export type BufferSpec =
  /** Activations and weights: in the device's activation type. */
  | { type: 'act'; values: ArrayLike<number> }
  | { type: 'f32' | 'i32'; values: ArrayLike<number> }
  /** float32, as a model uploads its biases. */
  | { type: 'vector'; values: ArrayLike<number> }
  /** Bytes whose layout only kernels know. */
  | { type: 'opaque'; bytes: (device: Device) => number }
  /** Whatever a test lays out itself. */
  | { type: 'placed'; place: (device: Device, storage: FloatDType) => number }
  /** A weight of n rows and k columns. */
  | { type: 'linear'; n: number; k: number; values: ArrayLike<number>; dtype?: FloatDType }
  /** The same, quantized by the device. */
  | { type: 'quantized'; n: number; k: number; values: ArrayLike<number>; scheme: QuantizationScheme }
  /** The addresses of such weights, one for each expert. */
  | { type: 'experts'; n: number; k: number; values: readonly ArrayLike<number>[]; scheme?: QuantizationScheme };

/** One call: arguments by name, a string being a buffer's. Dtype arguments are filled in. */
export interface OpStep {
  op: OpName;
  args: Readonly<Record<string, string | number>>;
}

export interface OpCase {
  name: string;
  buffers: Readonly<Record<string, BufferSpec>>;
  steps: readonly OpStep[];
  /** Buffers to compare. */
  outputs: readonly string[];
}

interface Placed {
  ptr: number;
  read(): Float32Array;
}

/** The bytes of values, rounded to the type. */
export const toBytes: Record<FloatDType, (values: Float32Array) => Uint8Array> = {
  float32: (values) => new Uint8Array(values.slice().buffer),
  float16: (values) => new Uint8Array(new Float16Array(values).buffer),
  bfloat16: (values) => {
    const words = new Uint32Array(rounded(values, 'bfloat16').buffer);
    return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
  },
};

function fromBits(bytes: ArrayBuffer, dtype: FloatDType, length: number): Float32Array {
  if (dtype === 'float32') return new Float32Array(bytes, 0, length).slice();
  if (dtype === 'float16') return Float32Array.from(new Float16Array(bytes, 0, length));
  const words = Uint32Array.from(new Uint16Array(bytes, 0, length), (half) => half << 16);
  return new Float32Array(words.buffer);
}

function uploaded(device: Device, bytes: Uint8Array): StagingBuffer {
  const staging = device.staging(Math.max(4, bytes.length), 'test');
  new Uint8Array(staging.host).set(bytes);
  staging.upload();
  return staging;
}

function unreadable(address: number): Placed {
  return { ptr: address, read: () => new Float32Array(0) };
}

/** A weight of n rows and k columns, its values rounded to `dtype`. */
function packed(device: Device, shape: { n: number; k: number }, values: ArrayLike<number>, dtype: FloatDType): number {
  return device.packLinear([matrixSource(device, shape, rounded(values, dtype))], dtype, 'test').ptr;
}

function matrixSource(device: Device, { n, k }: { n: number; k: number }, values: Float32Array) {
  const { host } = uploaded(device, toBytes.float32(values));
  return { ptr: ptr(host), dtype: 'float32', rows: n, cols: k, ld: k } as const;
}

function place(device: Device, spec: BufferSpec, storage: FloatDType): Placed {
  if (spec.type === 'opaque') return unreadable(device.alloc(spec.bytes(device), 'test'));
  if (spec.type === 'vector') return unreadable(device.uploadVector(Float32Array.from(spec.values), 'test'));
  if (spec.type === 'placed') return unreadable(spec.place(device, storage));
  if (spec.type === 'linear') return unreadable(packed(device, spec, spec.values, spec.dtype ?? storage));
  if (spec.type === 'quantized') {
    const source = matrixSource(device, spec, rounded(spec.values, storage));
    return unreadable(device.packQuantizedLinear([source], spec.scheme, 'test').ptr);
  }
  if (spec.type === 'experts') {
    const { scheme } = spec;
    const addresses = spec.values.map((values) =>
      BigInt(
        scheme === undefined
          ? packed(device, spec, values, storage)
          : device.packQuantizedLinear([matrixSource(device, spec, rounded(values, storage))], scheme, 'test').ptr,
      ),
    );
    return unreadable(uploaded(device, new Uint8Array(BigInt64Array.from(addresses).buffer)).ptr);
  }
  const { length } = spec.values;
  if (spec.type === 'i32') {
    const staging = uploaded(device, new Uint8Array(Int32Array.from(spec.values).buffer));
    return {
      ptr: staging.ptr,
      read: () => download(staging, () => Float32Array.from(new Int32Array(staging.host, 0, length))),
    };
  }
  const dtype = spec.type === 'act' ? device.activationDtype : 'float32';
  const values = spec.type === 'act' ? rounded(spec.values, storage) : Float32Array.from(spec.values);
  const staging = uploaded(device, toBytes[dtype](values));
  return { ptr: staging.ptr, read: () => download(staging, () => fromBits(staging.host, dtype, length)) };

  function download(from: StagingBuffer, decode: () => Float32Array): Float32Array {
    from.download();
    device.wait(device.record());
    return decode();
  }
}

/**
 * What the outputs hold after the steps. Values of `act` buffers are representable in `storage` on every device. Its buffers are freed, unless a step
 * fails: then work may still use them.
 */
export function runCase(device: Device, testCase: OpCase, storage: FloatDType): Float32Array[] {
  const memory = new MemoryScope(device);
  const outputs = runSteps(memory, testCase, storage);
  memory.freeAll();
  return outputs;
}

function runSteps(device: Device, testCase: OpCase, storage: FloatDType): Float32Array[] {
  const placed = new Map<string, Placed>();
  for (const [name, spec] of Object.entries(testCase.buffers)) placed.set(name, place(device, spec, storage));
  for (const { op, args } of testCase.steps) {
    const values = Object.keys(OPS[op].args).map((name) => {
      const value = args[name];
      if (typeof value === 'string') return placed.get(value)!.ptr;
      if (value !== undefined) return value;
      if (name === 'w_dtype' || name === 'table_dtype' || name === 'cache_dtype') return DTYPE_CODES[storage];
      throw new Error(`${op}: argument ${name} is missing`);
    });
    device.ops[op](...values);
  }
  return testCase.outputs.map((name) => placed.get(name)!.read());
}

/** Share of a value, and share of the greatest value of its buffer, by which the devices may differ: rounding of stored activations. */
const TOLERANCE: Record<FloatDType, { relative: number; absolute: number }> = {
  float32: { relative: 1e-5, absolute: 4e-6 },
  float16: { relative: 2 ** -9, absolute: 2 ** -10 },
  bfloat16: { relative: 2 ** -6, absolute: 2 ** -7 },
};

/** The first index where the buffers differ by more than the tolerance, with both values. */
export function firstDifference(actual: Float32Array, expected: Float32Array, dtype: FloatDType): string | null {
  const { relative, absolute } = TOLERANCE[dtype];
  const greatest = expected.reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (Object.is(a, e) || a === e) continue;
    if (!(Math.abs(a - e) <= relative * Math.abs(e) + absolute * greatest)) return `[${i}]: ${a}, not ${e}`;
  }
  return actual.length === expected.length ? null : `${actual.length} values, not ${expected.length}`;
}
