import type { Device, DevicePtr, QuantizedLinear } from '../device/device.ts';
import { LM_HEAD_SCHEME, QUANTIZATION_BITS, type QuantizationScheme } from '../device/quantization-scheme.ts';
import { type LinearKernel, type LinearMethod, loadBias, shardMatrix } from '../layers/linear-method.ts';

/** Quantizes the checkpoint's weights while they are loaded. */
export function onlineLinearMethod(scheme: QuantizationScheme): LinearMethod {
  return {
    name: scheme,
    load(device, weights, _dtype, spec) {
      const weight = device.packQuantizedLinear(
        spec.shards.map((shard) => shardMatrix(weights, shard)),
        spec.isLMHead ? LM_HEAD_SCHEME : scheme,
        spec.purpose,
      );
      return new OnlineQuantizedLinear(device, weight, spec.bias ? loadBias(device, weights, spec) : 0);
    },
  };
}

class OnlineQuantizedLinear implements LinearKernel {
  readonly bytes: number;
  private readonly bits: number;

  constructor(
    private readonly device: Device,
    private readonly weight: QuantizedLinear,
    private readonly bias: DevicePtr,
  ) {
    this.bytes = weight.bytes;
    this.bits = QUANTIZATION_BITS[weight.scheme];
  }

  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.quantized_linear(x, ldX, ptr, this.bits, this.bias, out, ldOut, m, n, k);
  }

  applyFloat32(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.quantized_linear_f32(x, ldX, ptr, this.bits, this.bias, out, ldOut, m, n, k);
  }
}
