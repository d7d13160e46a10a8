import type { DevicePtr } from '../device/device.ts';
import type { FloatDType } from '../device/dtype.ts';
import type { LinearKernel, LinearShard } from './linear-method.ts';

/** What adapters add to one linear layer. */
export interface LinearAdapter {
  /**
   * Enqueues out += what the adapters of this step's rows give for act x: rows `ldX` and `ldOut` elements apart. Rows without an adapter stay
   * as they are.
   */
  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number): void;
}

/** A linear layer in whose place an adapter may bring its own: PEFT's `modules_to_save`. */
export interface ReplaceableLinear {
  /** Module name in the checkpoint. */
  prefix: string;
  /** Of its matrix. */
  shape: readonly [rows: number, cols: number];
  /** Rows that an adapter's matrix may have; null: those of `shape`. */
  maxRows: number | null;
  bias: boolean;
  /** Type that its weights are kept in. */
  dtype: FloatDType;
}

export interface ReplacedLinear {
  /** The layer of the adapter in a slot; null: it has none of its own. */
  kernelOf(slot: number): LinearKernel | null;
  /** Rows of its matrix; null: as above. */
  rowsOf(slot: number): number | null;
}

/** The adapters of a model (src/lora): a linear layer registers while it is built, and asks for its part in each step. */
export interface LinearAdapters {
  /** Most classes of an adapter's head; null: those of the model's. */
  readonly maxClasses: number | null;
  add(shards: readonly LinearShard[]): LinearAdapter;
  addReplaceable(layer: ReplaceableLinear): ReplacedLinear;
}
