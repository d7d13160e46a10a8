import type { DevicePtr } from '../device/device.ts';
import type { LinearShard } from './linear-method.ts';

/** What adapters add to one linear layer. */
export interface LinearAdapter {
  /**
   * Enqueues out += what the adapters of this step's rows give for act x: rows `ldX` and `ldOut` elements apart. Rows without an adapter stay
   * as they are.
   */
  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number): void;
}

/** The adapters of a model (src/lora): a linear layer registers while it is built, and asks for its part in each step. */
export interface LinearAdapters {
  add(shards: readonly LinearShard[]): LinearAdapter;
}
