import { ptr } from 'bun:ffi';
import type { Device } from '../../src/device/device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { uploadBytes } from '../../src/device/upload-bytes.ts';
import type { TensorView } from '../../src/loader/weight-source.ts';
import { packBlock } from '../../src/lora/adapter-block.ts';
import { hostMatrix } from '../../src/lora/host-matrix.ts';
import { randomFloats, rounded } from './harness.ts';

/** A layer, adapters for it (null: one that leaves the layer alone), and which rows of a batch are whose. */
export interface LoraProblem {
  k: number;
  /** Output features by slice. */
  columns: readonly number[];
  ldX: number;
  ldOut: number;
  /** By slot. */
  adapters: readonly ({ rank: number; slices: { scale: number; a: Float32Array; b: Float32Array }[] } | null)[];
  groups: readonly { slot: number; rows: readonly number[] }[];
}

/** Random adapters of these ranks, one a slot; every row of those left over by a fair share is of nobody. */
export function loraProblem(
  numRows: number,
  k: number,
  columns: readonly number[],
  ranks: readonly (number | null)[],
): LoraProblem {
  const groups = ranks.map((_, slot) => ({
    slot,
    // Rows of an adapter lie apart.
    rows: Array.from({ length: numRows }, (_, row) => row).filter((row) => row % (ranks.length + 1) === slot + 1),
  }));
  const adapters = ranks.map((rank, slot) => {
    if (rank === null) return null;
    const slices = columns.map((count, s) => ({
      scale: 0.5 + s,
      a: randomFloats(rank * k, 100 * slot + s),
      b: randomFloats(count * rank, 100 * slot + s + 50),
    }));
    return { rank, slices };
  });
  return {
    k,
    columns,
    ldX: k + 3,
    ldOut: columns.reduce((sum, count) => sum + count, 0) + 5,
    adapters,
    groups: groups.filter(({ rows }) => rows.length > 0),
  };
}

/** What `add_lora` shall leave in out, in float64, with weights that `dtype` can hold. */
export function loraReference(
  { k, columns, ldX, ldOut, adapters, groups }: LoraProblem,
  x: Float32Array,
  out: Float32Array,
  dtype: FloatDType,
): number[] {
  const result = [...out];
  for (const { slot, rows } of groups) {
    const adapter = adapters[slot]!;
    if (adapter === null) continue;
    const { rank } = adapter;
    for (const row of rows) {
      let column = row * ldOut;
      adapter.slices.forEach(({ scale, a, b }, s) => {
        const [storedA, storedB] = [rounded(a, dtype), rounded(b, dtype)];
        const shrunk = Array.from({ length: rank }, (_, r) => {
          let sum = 0;
          for (let i = 0; i < k; i++) sum += x[row * ldX + i]! * storedA[r * k + i]!;
          return scale * sum;
        });
        for (let i = 0; i < columns[s]!; i++, column++) {
          for (let r = 0; r < rank; r++) result[column]! += shrunk[r]! * storedB[i * rank + r]!;
        }
      });
    }
  }
  return result;
}

/** The table of the adapters' blocks on a device. */
export function loraBlocks(device: Device, { k, columns, adapters }: LoraProblem, dtype: FloatDType): number {
  const addresses = adapters.map((adapter) => {
    if (adapter === null) return 0n;
    const slices = adapter.slices.map(({ scale, a, b }, s) => ({
      rank: adapter.rank,
      scale,
      a: matrix(a, adapter.rank, k, dtype),
      b: matrix(b, columns[s]!, adapter.rank, dtype),
    }));
    return BigInt(uploadBytes(device, packBlock(slices, { inFeatures: k, columns, dtype }), 'test'));
  });
  return uploadBytes(device, new Uint8Array(new BigInt64Array(addresses).buffer), 'test');
}

function matrix(values: Float32Array, rows: number, cols: number, dtype: FloatDType) {
  const memory = new Float32Array(new ArrayBuffer(values.byteLength));
  memory.set(values);
  const tensor: TensorView = { name: '', dtype: 'float32', shape: [rows, cols], ptr: ptr(memory.buffer) };
  const { elements, ...shape } = hostMatrix(tensor, dtype);
  // The view is of memory that is about to be collected.
  return { ...shape, elements: elements.slice() };
}
