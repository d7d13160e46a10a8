import type { Device, DevicePtr, QuantizedLinear } from '../device/device.ts';
import { QUANTIZATION_CODES, type QuantizationScheme } from '../device/quantization-scheme.ts';
import {
  type ExpertLinearSpec,
  type GroupedLinearKernel,
  totalBytes,
  uploadAddresses,
} from '../layers/grouped-linear.ts';
import type { LinearKernel } from '../layers/linear-method.ts';

/** Multiplies with a weight as `Device.packQuantizedLinear` gave it. */
export class QuantizedLinearKernel implements LinearKernel {
  readonly bytes: number;
  private readonly schemeCode: number;

  constructor(
    private readonly device: Device,
    private readonly weight: QuantizedLinear,
    private readonly bias: DevicePtr,
  ) {
    this.bytes = weight.bytes;
    this.schemeCode = QUANTIZATION_CODES[weight.scheme];
  }

  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.quantized_linear(x, ldX, ptr, this.schemeCode, this.bias, out, ldOut, m, n, k);
  }

  applyFloat32(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.quantized_linear_f32(x, ldX, ptr, this.schemeCode, this.bias, out, ldOut, m, n, k);
  }
}

/** The same for the experts of a mixture. */
export class QuantizedGroupedLinear implements GroupedLinearKernel {
  readonly outFeatures: number;
  readonly bytes: number;
  private readonly inFeatures: number;
  private readonly numExperts: number;
  private readonly schemeCode: number;
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
    this.bytes = totalBytes(packed);
    this.inFeatures = packed[0]!.k;
    this.numExperts = numExperts;
    this.schemeCode = QUANTIZATION_CODES[scheme];
    this.weights = uploadAddresses(device, packed, purpose);
    this.biases = biases === null ? 0 : device.uploadVector(biases, purpose);
  }

  apply(x: DevicePtr, out: DevicePtr, expertOffsets: DevicePtr, rows: number): void {
    const { schemeCode, weights, biases, inFeatures, outFeatures, numExperts } = this;
    const { ops } = this.device;
    ops.quantized_grouped_linear(
      ...[x, inFeatures, weights, schemeCode, biases, expertOffsets, numExperts],
      ...[out, outFeatures, rows, outFeatures, inFeatures],
    );
  }
}
