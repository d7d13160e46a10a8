import type { Device, DevicePtr } from '../device/device.ts';
import { readVector } from './host-vector.ts';
import type { LayerContext } from './layer-context.ts';
import { loadNormWeight } from './rms-norm.ts';

/** Normalization of rows of `size` elements to mean 0 and variance 1, then scale and, with `bias`, shift. */
export class LayerNorm {
  private readonly device: Device;
  private readonly weight: DevicePtr;
  /** 0: none. */
  private readonly bias: DevicePtr;

  constructor(
    { device, weights }: LayerContext,
    prefix: string,
    private readonly size: number,
    private readonly eps: number,
    bias: boolean,
  ) {
    this.device = device;
    this.weight = loadNormWeight(device, weights, prefix, size);
    this.bias = bias ? device.uploadVector(readVector(weights.get(`${prefix}.bias`, [size]), 0, size), 'weights') : 0;
  }

  /** out = norm(x), act [rows, size]; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, rows: number): void {
    this.device.ops.layer_norm(x, this.weight, this.bias, out, rows, this.size, this.eps);
  }
}
