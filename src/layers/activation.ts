import type { Device, DevicePtr } from '../device/device.ts';

/** Codes of the op `activate` by transformers' names. */
const KINDS: Readonly<Record<string, number>> = {
  silu: 0,
  swish: 0,
  gelu_pytorch_tanh: 1,
  gelu_new: 1,
  gelu: 2,
  tanh: 3,
  relu: 4,
};

/** Enqueues act x[count] = f(x), in place. */
export type Activation = (x: DevicePtr, count: number) => void;

/** An activation by transformers' name. Throws an Error that lists the known names. */
export function activation(device: Device, name: string): Activation {
  const kind = KINDS[name];
  if (kind === undefined) {
    throw new Error(`The activation "${name}" is not known; known are ${Object.keys(KINDS).join(', ')}.`);
  }
  return (x, count) => device.ops.activate(x, x, count, kind);
}
