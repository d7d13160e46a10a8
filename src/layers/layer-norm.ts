import type { Device, DevicePtr } from '../device/device.ts';
import { readVector } from './host-vector.ts';
import type { LayerContext } from './layer-context.ts';

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
    // Checkpoints of the first BERTs call them so.
    const isOld = !weights.has(`${prefix}.weight`) && weights.has(`${prefix}.gamma`);
    const upload = (name: string) =>
      device.uploadVector(readVector(weights.get(`${prefix}.${name}`, [size]), 0, size), 'weights');
    this.weight = upload(isOld ? 'gamma' : 'weight');
    this.bias = bias ? upload(isOld ? 'beta' : 'bias') : 0;
  }

  /** out = norm(x), act [rows, size]; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, rows: number): void {
    this.device.ops.layer_norm(x, this.weight, this.bias, out, rows, this.size, this.eps);
  }
}
