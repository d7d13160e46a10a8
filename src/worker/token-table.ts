import type { DevicePtr } from '../device/device.ts';

/** i32 [maxNumSeqs, ld] on the device: every token of every running request, see ModelRunner. */
export interface TokenTable {
  ptr: DevicePtr;
  ld: number;
}
