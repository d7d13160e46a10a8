import type { Device, DevicePtr, QuantizedLinear } from '../device/device.ts';
import { LM_HEAD_SCHEME, QUANTIZATION_BITS, type QuantizationScheme } from '../device/quantization-scheme.ts';
import { type ExpertLinearSpec, type GroupedLinearKernel, uploadAddresses } from '../layers/grouped-linear.ts';
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
    loadExperts: (device, _dtype, spec) => new OnlineQuantizedGroupedLinear(device, scheme, spec),
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

class OnlineQuantizedGroupedLinear implements GroupedLinearKernel {
  readonly outFeatures: number;
  private readonly inFeatures: number;
  private readonly numExperts: number;
  private readonly bits: number;
  private readonly weights: DevicePtr;
  private readonly biases: DevicePtr;

  constructor(
    private readonly device: Device,
    scheme: QuantizationScheme,
    { numExperts, matrices, biases, purpose }: ExpertLinearSpec,
  ) {
    const packed = Array.from({ length: numExperts }, (_, expert) =>
      device.packQuantizedLinear(matrices(expert), scheme, purpose),
    );
    this.outFeatures = packed[0]!.n;
    this.inFeatures = packed[0]!.k;
    this.numExperts = numExperts;
    this.bits = QUANTIZATION_BITS[scheme];
    this.weights = uploadAddresses(device, packed, purpose);
    this.biases = biases === null ? 0 : device.uploadVector(biases, purpose);
  }

  apply(x: DevicePtr, out: DevicePtr, expertOffsets: DevicePtr, rows: number): void {
    const { bits, weights, biases, inFeatures, outFeatures, numExperts } = this;
    const { ops } = this.device;
    ops.quantized_grouped_linear(
      ...[x, inFeatures, weights, bits, biases, expertOffsets, numExperts],
      ...[out, outFeatures, rows, outFeatures, inFeatures],
    );
  }
}
