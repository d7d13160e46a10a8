import type { Device } from '../device/device.ts';
import { MemoryScope } from '../device/memory-scope.ts';
import { freeOnFailure } from '../device/release.ts';
import { readVector } from '../layers/host-vector.ts';
import type { ReplaceableLinear, ReplacedLinear } from '../layers/linear-adapters.ts';
import { type LinearKernel, UnquantizedLinear } from '../layers/linear-method.ts';
import type { SavedWeights } from './adapter-weights.ts';

/** A layer in whose place adapters have their own, by slot. */
export class ReplacedLayer implements ReplacedLinear {
  private readonly bySlot = new Map<number, { kernel: LinearKernel; rows: number; memory: MemoryScope }>();

  constructor(
    private readonly device: Device,
    private readonly purpose: string,
    readonly layer: ReplaceableLinear,
  ) {}

  kernelOf(slot: number): LinearKernel | null {
    return this.bySlot.get(slot)?.kernel ?? null;
  }

  rowsOf(slot: number): number | null {
    return this.bySlot.get(slot)?.rows ?? null;
  }

  fill(slot: number, { weight, bias }: SavedWeights): void {
    const { shape, dtype } = this.layer;
    const memory = new MemoryScope(this.device);
    const rows = weight.shape[0]!;
    const matrix = { ptr: weight.ptr, dtype: weight.dtype, rows, cols: shape[1], ld: shape[1] };
    const kernel = freeOnFailure(
      () => memory.freeAll(),
      () => {
        const packed = memory.packLinear([matrix], dtype, this.purpose);
        const biasPtr = bias === null ? 0 : memory.uploadVector(readVector(bias, 0, rows), this.purpose);
        return new UnquantizedLinear(memory, packed, biasPtr);
      },
    );
    this.bySlot.set(slot, { kernel, rows, memory });
  }

  clear(slot: number): void {
    this.bySlot.get(slot)?.memory.freeAll();
    this.bySlot.delete(slot);
  }
}
