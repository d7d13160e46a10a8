import type { Device, DevicePtr } from '../device/device.ts';
import { StagedArray } from '../device/staged-array.ts';

/** A row of a step's logits that the host changes. */
export interface EditedRow {
  row: number;
  /**
   * @param logits float32 [vocabSize], to change in place
   * @returns false: the row stays as it was
   */
  edit(logits: Float32Array): boolean;
}

/** Lets the host change rows of logits on the device; the caller waits until they have been computed. */
export class LogitsEditor {
  private readonly staged: StagedArray;
  private copy: { ptr: DevicePtr; bytes: number } = { ptr: 0, bytes: 0 };

  constructor(
    private readonly device: Device,
    private readonly vocabSize: number,
  ) {
    this.staged = new StagedArray(device, 'logits processors');
  }

  /** Reads the rows of `logits` (float32 [any, vocabSize]) back, has them edited, and enqueues their way to the device. */
  edit(logits: DevicePtr, rows: readonly EditedRow[]): void {
    const { device, staged, vocabSize } = this;
    const words = rows.length * vocabSize;
    // What it grows out of may still be on its way to the device.
    if (words > staged.i32.length) device.wait(device.record());
    staged.reserve(words);
    rows.forEach(({ row }, i) => {
      device.ops.copy_bytes(logits + row * this.rowBytes, staged.ptr + i * this.rowBytes, this.rowBytes);
    });
    staged.download(words);
    device.wait(device.record());
    const isChanged = rows.map(({ edit }, i) => edit(staged.f32.subarray(i * vocabSize, (i + 1) * vocabSize)));
    staged.upload(words);
    rows.forEach(({ row }, i) => {
      if (isChanged[i])
        device.ops.copy_bytes(staged.ptr + i * this.rowBytes, logits + row * this.rowBytes, this.rowBytes);
    });
  }

  /** The logits [rows, vocabSize] as they are now, until the next call. */
  keep(logits: DevicePtr, rows: number): DevicePtr {
    const bytes = rows * this.rowBytes;
    if (bytes > this.copy.bytes) {
      this.freeCopy();
      this.copy = { ptr: this.device.alloc(bytes, 'logits processors'), bytes };
    }
    this.device.ops.copy_bytes(logits, this.copy.ptr, bytes);
    return this.copy.ptr;
  }

  free(): void {
    this.staged.free();
    this.freeCopy();
  }

  private get rowBytes(): number {
    return this.vocabSize * 4;
  }

  private freeCopy(): void {
    if (this.copy.bytes > 0) {
      this.device.wait(this.device.record());
      this.device.free(this.copy.ptr);
    }
    this.copy = { ptr: 0, bytes: 0 };
  }
}
