import type { DevicePtr } from '../device/device.ts';

/** Neighbouring rows of one adapter, or of the base model. */
export interface HeadRows {
  /** Where the adapter is kept; null: the base model. */
  slot: number | null;
  numRows: number;
}

/** Makes embeddings or logits of classes of pooled hidden states. */
export interface PoolerHead {
  /** Elements of a row that comes out. */
  readonly width: number;
  /** How many of them count, the first ones, with the adapter in a slot or the base model (null). */
  widthOf(slot: number | null): number;
  /**
   * act pooled [rows, hiddenSize] to float32 [rows, width], valid until the next forward.
   *
   * @param groups the rows in their order; together they are all of them
   */
  forward(pooled: DevicePtr, groups: readonly HeadRows[]): DevicePtr;
}

export function countRows(groups: readonly HeadRows[]): number {
  return groups.reduce((sum, { numRows }) => sum + numRows, 0);
}
