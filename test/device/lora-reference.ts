import { ptr } from 'bun:ffi';
import type { Device } from '../../src/device/device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import type { TensorView } from '../../src/loader/weight-source.ts';
import { packBlock } from '../../src/lora/adapter-block.ts';
import { hostMatrix } from '../../src/lora/host-matrix.ts';
import { uploadBytes } from '../../src/lora/upload-bytes.ts';
import { rounded } from './harness.ts';

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
