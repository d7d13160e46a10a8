import type { Device, DevicePtr, MatrixSource, QuantizableSource } from '../device/device.ts';
import { DTYPE_CODES, type FloatDType } from '../device/dtype.ts';

/** One projection of all experts of a mixture. */
export interface ExpertLinearSpec {
  numExperts: number;
  /** An expert's matrices, stacked by rows. They need to stay valid only until those of the next expert are asked for. */
  matrices(expert: number): readonly QuantizableSource[];
  /** float32 [numExperts, output features], or null. */
  biases: Float32Array | null;
  /** For the memory report. */
  purpose: string;
}

/** The loaded weights of an {@link ExpertLinearSpec}. */
export interface GroupedLinearKernel {
  /** Output features. */
  readonly outFeatures: number;
  /** All experts' weights on the device. */
  readonly bytes: number;
  /**
   * Enqueues act out[rows, n] = x[rows, k] times the weight of each row's expert, both dense, rows sorted by expert.
   * @param expertOffsets i32 [numExperts + 1]: first row of each expert, as `moe_permute` gives them
   */
  apply(x: DevicePtr, out: DevicePtr, expertOffsets: DevicePtr, rows: number): void;
}

/** Experts' weights in a floating point type. */
export class UnquantizedGroupedLinear implements GroupedLinearKernel {
  readonly outFeatures: number;
  readonly bytes: number;
  private readonly numExperts: number;
  private readonly inFeatures: number;
  private readonly dtypeCode: number;
  private readonly weights: DevicePtr;
  private readonly biases: DevicePtr;

  constructor(
    private readonly device: Device,
    dtype: FloatDType,
    spec: ExpertLinearSpec,
  ) {
    const { numExperts, biases, purpose } = spec;
    this.numExperts = numExperts;
    const packed = Array.from({ length: numExperts }, (_, expert) =>
      device.packLinear(floatMatrices(spec.matrices(expert)), dtype, purpose),
    );
    const { n, k, dtype: packedDtype } = packed[0]!;
    this.outFeatures = n;
    this.bytes = totalBytes(packed);
    this.inFeatures = k;
    this.dtypeCode = DTYPE_CODES[packedDtype];
    this.weights = uploadAddresses(device, packed, purpose);
    this.biases = biases === null ? 0 : device.uploadVector(biases, purpose);
  }

  apply(x: DevicePtr, out: DevicePtr, expertOffsets: DevicePtr, rows: number): void {
    const { dtypeCode, weights, biases, inFeatures, outFeatures, numExperts } = this;
    this.device.ops.grouped_linear(
      x,
      inFeatures,
      weights,
      dtypeCode,
      biases,
      expertOffsets,
      numExperts,
      out,
      outFeatures,
      rows,
      outFeatures,
      inFeatures,
    );
  }
}

function floatMatrices(sources: readonly QuantizableSource[]): MatrixSource[] {
  return sources.map((source) => {
    if (source.dtype !== 'fp8_e4m3') return source;
    throw new Error(
      'The experts have weights of 8-bit floats, which only a checkpoint whose config.json says so (quantization_config) can have.',
    );
  });
}

/** Of all experts' weights. */
export function totalBytes(weights: readonly { bytes: number }[]): number {
  return weights.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** i64 on the device, one for each expert. */
export function uploadAddresses(device: Device, weights: readonly { ptr: DevicePtr }[], purpose: string): DevicePtr {
  const addresses = device.staging(weights.length * BigInt64Array.BYTES_PER_ELEMENT, purpose);
  new BigInt64Array(addresses.host).set(weights.map(({ ptr }) => BigInt(ptr)));
  addresses.upload();
  return addresses.ptr;
}
