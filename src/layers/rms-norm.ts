import type { Device, DevicePtr } from '../device/device.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import { readVector } from './host-vector.ts';
import type { LayerContext } from './layer-context.ts';

export interface NormWeightOptions {
  /** Added to every weight: Gemma stores weights around 0. */
  offset?: number;
  /** Multiplies every weight: a factor on the norm's output at no cost. */
  scale?: number;
}

/** Uploads the float32 weight [size] of a norm. */
export function loadNormWeight(
  device: Device,
  weights: WeightSource,
  prefix: string,
  size: number,
  { offset = 0, scale = 1 }: NormWeightOptions = {},
): DevicePtr {
  const weight = readVector(weights.get(`${prefix}.weight`, [size]), 0, size);
  for (let i = 0; i < size; i++) weight[i] = (weight[i]! + offset) * scale;
  return device.uploadVector(weight, 'weights');
}

/** Root mean square normalization of rows of `size` elements. */
export class RMSNorm {
  private readonly device: Device;
  private readonly weight: DevicePtr;

  constructor(
    context: LayerContext,
    prefix: string,
    private readonly size: number,
    private readonly eps: number,
    options?: NormWeightOptions,
  ) {
    this.device = context.device;
    this.weight = loadNormWeight(context.device, context.weights, prefix, size, options);
  }

  /** out = norm(x); out may be x. */
  forward(x: DevicePtr, out: DevicePtr, rows: number): void {
    this.device.ops.rms_norm(x, this.weight, out, rows, this.size, this.eps);
  }

  /** residual += x; x = norm(residual). */
  addAndForward(x: DevicePtr, residual: DevicePtr, rows: number): void {
    this.device.ops.fused_add_rms_norm(x, residual, this.weight, x, rows, this.size, this.eps);
  }
}
