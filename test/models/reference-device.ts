import { type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import {
  type Device,
  type DevicePtr,
  KernelError,
  type MatrixSource,
  type Ops,
  type PackedLinear,
  type QuantizedLinear,
  type StagingBuffer,
} from '../../src/device/device.ts';
import { type DType, dtypeBytes, type FloatDType } from '../../src/device/dtype.ts';
import { OPS, type OpName } from '../../src/device/ops.ts';
import { REFERENCE_OPS } from './reference-ops.ts';
import { readMatrix, roundTo } from './reference-values.ts';

/**
 * A device in plain TypeScript: ops as their documentation says, in float64, over ordinary memory, at once. It is slow and obvious, an
 * oracle for the native devices and a way to run models without them. Weights and cached keys are rounded to their type and kept as float32.
 */
export class ReferenceDevice implements Device {
  readonly type = 'cpu';
  readonly description = 'reference';
  readonly activationDtype: FloatDType = 'float32';
  readonly ops: Ops;
  /** Names of the ops called so far, when `trace` is set. */
  readonly calls: OpName[] = [];
  private readonly memory = new Map<DevicePtr, { buffer: ArrayBuffer; purpose: string }>();

  constructor({ trace = false } = {}) {
    const ops: Partial<Record<OpName, (...args: number[]) => void>> = {};
    for (const name of Object.keys(OPS) as OpName[]) {
      const op = REFERENCE_OPS[name];
      const numArgs = Object.keys(OPS[name].args).length;
      ops[name] = (...args) => {
        if (trace) this.calls.push(name);
        if (op === undefined) throw new KernelError(name, 1, `${name} is not part of a forward pass`);
        if (args.length !== numArgs || !args.every(Number.isFinite)) {
          throw new KernelError(name, 1, `${name} got ${args.join(', ')}; expected ${numArgs} numbers`);
        }
        op(...args);
      };
    }
    this.ops = ops as Ops;
  }

  alloc(bytes: number, purpose: string): DevicePtr {
    const buffer = new ArrayBuffer(Math.max(bytes, 8));
    const address = ptr(buffer);
    this.memory.set(address, { buffer, purpose });
    return address;
  }

  free(address: DevicePtr): void {
    if (!this.memory.delete(address)) throw new Error(`Address ${address} is not allocated.`);
  }

  staging(bytes: number, purpose: string): StagingBuffer {
    const address = this.alloc(bytes, purpose);
    return {
      ptr: address,
      byteLength: bytes,
      host: toArrayBuffer(address as Pointer, 0, bytes),
      upload: () => {},
      download: () => {},
      free: () => this.free(address),
    };
  }

  packLinear(sources: readonly MatrixSource[], dtype: FloatDType, purpose: string): PackedLinear {
    const k = sources[0]!.cols;
    const n = sources.reduce((rows, source) => rows + source.rows, 0);
    const values = new Float32Array(n * k);
    let offset = 0;
    for (const source of sources) {
      if (source.cols !== k) throw new Error(`packLinear: ${source.cols} columns beside ${k}`);
      values.set(readMatrix(source), offset);
      offset += source.rows * k;
    }
    return { ptr: this.store(values, dtype, purpose), dtype, n, k, bytes: n * k * dtypeBytes(dtype) };
  }

  packQuantizedLinear(): QuantizedLinear {
    throw new Error('The reference device has no quantized weights.');
  }

  uploadVector(values: Float32Array, purpose: string): DevicePtr {
    return this.store(values, 'float32', purpose);
  }

  kvBlockBytes(numKvHeads: number, headDim: number, blockSize: number, _dtype: DType): number {
    return 2 * blockSize * numKvHeads * headDim * dtypeBytes('float32');
  }

  replaySize(): null {
    return null;
  }

  replayable<Result>(enqueue: () => Result): Result {
    return enqueue();
  }

  forgetReplays(): void {}

  rehearse(): void {}

  memoryInfo() {
    return { freeBytes: 2 ** 30, totalBytes: 2 ** 30 };
  }

  memoryReport(): Record<string, number> {
    const report: Record<string, number> = {};
    for (const { buffer, purpose } of this.memory.values()) {
      report[purpose] = (report[purpose] ?? 0) + buffer.byteLength;
    }
    return report;
  }

  record(): number {
    return 0;
  }

  query(): boolean {
    return true;
  }

  wait(): void {}

  close(): void {
    this.memory.clear();
  }

  private store(values: Float32Array, dtype: FloatDType, purpose: string): DevicePtr {
    const address = this.alloc(values.byteLength, purpose);
    new Float32Array(toArrayBuffer(address as Pointer, 0, values.byteLength)).set(roundTo(values, dtype));
    return address;
  }
}
