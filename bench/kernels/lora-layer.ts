import type { Device, DevicePtr, OpArgs } from '../../src/device/device.ts';
import { DTYPE_CODES, dtypeBytes, type FloatDType } from '../../src/device/dtype.ts';
import { uploadBytes } from '../../src/device/upload-bytes.ts';
import { packBlock } from '../../src/lora/adapter-block.ts';

/** Adapters that are measured: so many of one rank, in the batch at once. */
export interface LoraShape {
  numAdapters: number;
  rank: number;
}

/** One linear layer with adapters for all of its slices, in several copies, so that they come from memory. */
export class LoraLayer {
  private readonly tables: DevicePtr[];
  private readonly sliceOffsets: DevicePtr;
  private readonly slots: DevicePtr;
  private readonly n: number;

  constructor(
    private readonly device: Device,
    private readonly dtype: FloatDType,
    private readonly shape: LoraShape,
    private readonly k: number,
    private readonly columns: readonly number[],
    cycledBytes: number,
  ) {
    const offsets = [0];
    for (const count of columns) offsets.push(offsets.at(-1)! + count);
    this.n = offsets.at(-1)!;
    this.sliceOffsets = this.ints(offsets);
    this.slots = this.ints(Array.from({ length: shape.numAdapters }, (_, slot) => slot));
    const block = this.block();
    const count = Math.max(1, Math.ceil(cycledBytes / (block.byteLength * shape.numAdapters)));
    this.tables = Array.from({ length: count }, () => {
      const addresses = Array.from({ length: shape.numAdapters }, () => BigInt(uploadBytes(device, block, 'bench')));
      return uploadBytes(device, new Uint8Array(new BigInt64Array(addresses).buffer), 'bench');
    });
  }

  /** Bytes and operations for so many rows, shared evenly by the adapters. */
  work(rows: number): { bytes: number; flops: number } {
    const elements = this.shape.rank * (this.columns.length * this.k + this.n);
    const numAdapters = Math.min(rows, this.shape.numAdapters);
    // Rows of out are read and written.
    const bytes = numAdapters * elements * dtypeBytes(this.dtype) + rows * (this.k + 2 * this.n) * 4;
    return { bytes, flops: 2 * rows * elements };
  }

  args(rows: number, x: DevicePtr, out: DevicePtr): (turn: number) => OpArgs<'add_lora'> {
    const numGroups = Math.min(rows, this.shape.numAdapters);
    const common = {
      x,
      ld_x: this.k,
      rows: this.ints(Array.from({ length: rows }, (_, row) => row)),
      group_offsets: this.ints(Array.from({ length: numGroups + 1 }, (_, g) => Math.round((g * rows) / numGroups))),
      group_slots: this.slots,
      num_rows: rows,
      num_groups: numGroups,
      w_dtype: DTYPE_CODES[this.dtype],
      slice_offsets: this.sliceOffsets,
      num_slices: this.columns.length,
      max_rank: this.shape.rank,
      out,
      ld_out: this.n,
      n: this.n,
      k: this.k,
    };
    return (turn) => ({ ...common, blocks: this.tables[turn % this.tables.length]! });
  }

  private block(): Uint8Array {
    const { rank } = this.shape;
    const { k, dtype } = this;
    const zeros = (rows: number, cols: number) => {
      const elements = dtype === 'float32' ? new Uint32Array(rows * cols) : new Uint16Array(rows * cols);
      return { elements, rows, cols, ld: cols };
    };
    const slices = this.columns.map((count) => ({ rank, scale: 1, a: zeros(rank, k), b: zeros(count, rank) }));
    return packBlock(slices, { inFeatures: k, columns: this.columns, dtype });
  }

  private ints(values: readonly number[]): DevicePtr {
    return uploadBytes(this.device, new Uint8Array(Int32Array.from(values).buffer), 'bench');
  }
}
