import type {
  Device,
  DeviceEvent,
  DevicePtr,
  MatrixSource,
  Ops,
  PackedLinear,
  QuantizableSource,
  QuantizedLinear,
  StagingBuffer,
} from './device.ts';
import type { DType, FloatDType } from './dtype.ts';
import type { QuantizationScheme } from './quantization-scheme.ts';

/** A device that remembers what was allocated through it, so that all of it can be freed at once: a model's layers never free what they hold. */
export class MemoryScope implements Device {
  readonly type: Device['type'];
  readonly description: string;
  readonly activationDtype: FloatDType;
  private readonly allocations = new Set<DevicePtr>();
  private readonly stagingBuffers = new Set<StagingBuffer>();

  constructor(private readonly device: Device) {
    this.type = device.type;
    this.description = device.description;
    this.activationDtype = device.activationDtype;
  }

  get ops(): Ops {
    return this.device.ops;
  }

  /** Frees all that was allocated here and is not freed yet. Work that uses it must be done. */
  freeAll(): void {
    for (const ptr of this.allocations) this.device.free(ptr);
    this.allocations.clear();
    for (const buffer of this.stagingBuffers) buffer.free();
    this.stagingBuffers.clear();
  }

  alloc(bytes: number, purpose: string): DevicePtr {
    return this.remember(this.device.alloc(bytes, purpose));
  }

  free(ptr: DevicePtr): void {
    this.allocations.delete(ptr);
    this.device.free(ptr);
  }

  staging(bytes: number, purpose: string): StagingBuffer {
    const buffer = this.device.staging(bytes, purpose);
    this.stagingBuffers.add(buffer);
    return {
      ...buffer,
      free: () => {
        this.stagingBuffers.delete(buffer);
        buffer.free();
      },
    };
  }

  packLinear(sources: readonly MatrixSource[], dtype: FloatDType, purpose: string): PackedLinear {
    const packed = this.device.packLinear(sources, dtype, purpose);
    this.remember(packed.ptr);
    return packed;
  }

  packQuantizedLinear(
    sources: readonly QuantizableSource[],
    scheme: QuantizationScheme,
    purpose: string,
  ): QuantizedLinear {
    const packed = this.device.packQuantizedLinear(sources, scheme, purpose);
    this.remember(packed.ptr);
    return packed;
  }

  uploadVector(values: Float32Array, purpose: string): DevicePtr {
    return this.remember(this.device.uploadVector(values, purpose));
  }

  kvBlockBytes(numKvHeads: number, headDim: number, blockSize: number, dtype: DType): number {
    return this.device.kvBlockBytes(numKvHeads, headDim, blockSize, dtype);
  }

  replaySize(numSeqs: number): number | null {
    return this.device.replaySize(numSeqs);
  }

  replayable<Result>(enqueue: () => Result): Result {
    return this.device.replayable(enqueue);
  }

  forgetReplays(): void {
    this.device.forgetReplays();
  }

  rehearse(enqueue: () => void): void {
    this.device.rehearse(enqueue);
  }

  memoryInfo(): { freeBytes: number; totalBytes: number } {
    return this.device.memoryInfo();
  }

  memoryReport(): Record<string, number> {
    return this.device.memoryReport();
  }

  record(): DeviceEvent {
    return this.device.record();
  }

  query(event: DeviceEvent): boolean {
    return this.device.query(event);
  }

  wait(event: DeviceEvent): void {
    this.device.wait(event);
  }

  /** Frees what was allocated here; the device stays open. */
  close(): void {
    this.freeAll();
  }

  private remember(ptr: DevicePtr): DevicePtr {
    this.allocations.add(ptr);
    return ptr;
  }
}
