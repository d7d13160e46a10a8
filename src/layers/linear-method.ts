import type { Device, DevicePtr, MatrixSource, PackedLinear } from '../device/device.ts';
import { DTYPE_CODES, dtypeBytes, type FloatDType } from '../device/dtype.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import { type ExpertLinearSpec, type GroupedLinearKernel, UnquantizedGroupedLinear } from './grouped-linear.ts';
import { readVector } from './host-vector.ts';

/** A rectangle of one checkpoint matrix: the part of `${prefix}.weight` that this layer on this rank multiplies with. */
export interface LinearShard {
  /** Module name in the checkpoint: "model.layers.0.self_attn.q_proj". */
  prefix: string;
  /** Rows (output features) and columns (input features) of the whole matrix. */
  shape: readonly [rows: number, cols: number];
  firstRow: number;
  numRows: number;
  firstCol: number;
  numCols: number;
}

export interface LinearSpec {
  /** Stacked by rows; all have the same number of columns. */
  shards: readonly LinearShard[];
  bias: boolean;
  /** For the memory report. */
  purpose: string;
  /** The product that gives the logits. */
  isLMHead?: boolean;
}

/** A loaded weight that can be multiplied with. */
export interface LinearKernel {
  /** Bytes on the device. */
  readonly bytes: number;
  /** Enqueues act out[m, n] = x[m, k] · Wᵀ + bias; rows `ldX` and `ldOut` elements apart. */
  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void;
  /** The same with float32 out. */
  applyFloat32(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void;
}

/**
 * How linear layers keep their weights: the joint for quantization. A method reads the tensors it needs of each shard's prefix
 * (`.weight`, or `.qweight` and `.scales`, …) and gives back something to multiply with; the layers know nothing more.
 */
export interface LinearMethod {
  readonly name: string;
  /** An output layer that is tied to the embedding is multiplied with the embedding's own table. */
  readonly keepsTiedTable?: true;
  load(device: Device, weights: WeightSource, dtype: FloatDType, spec: LinearSpec): LinearKernel;
  /** The same for the experts of a mixture; absent where a method can't. */
  loadExperts?(device: Device, dtype: FloatDType, spec: ExpertLinearSpec): GroupedLinearKernel;
}

/** Weights in the model's own floating point type. */
export const unquantizedLinearMethod: LinearMethod = {
  name: 'unquantized',
  keepsTiedTable: true,
  load(device, weights, dtype, spec) {
    const packed = device.packLinear(
      spec.shards.map((shard) => shardMatrix(weights, shard)),
      dtype,
      spec.purpose,
    );
    return new UnquantizedLinear(device, packed, spec.bias ? loadBias(device, weights, spec) : 0);
  },
  loadExperts: (device, dtype, spec) => new UnquantizedGroupedLinear(device, dtype, spec),
};

/** Multiplies with a weight as `Device.packLinear` gave it. */
export class UnquantizedLinear implements LinearKernel {
  readonly bytes: number;
  private readonly dtypeCode: number;

  constructor(
    private readonly device: Device,
    private readonly weight: PackedLinear,
    private readonly bias: DevicePtr,
  ) {
    this.bytes = weight.bytes;
    this.dtypeCode = DTYPE_CODES[weight.dtype];
  }

  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.linear(x, ldX, ptr, this.dtypeCode, this.bias, out, ldOut, m, n, k);
  }

  applyFloat32(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number, m: number): void {
    const { ptr, n, k } = this.weight;
    this.device.ops.linear_f32(x, ldX, ptr, this.dtypeCode, this.bias, out, ldOut, m, n, k);
  }
}

/** The shard's part of `${prefix}.weight` in the checkpoint. */
export function shardMatrix(weights: WeightSource, shard: LinearShard): MatrixSource {
  const { dtype, ptr } = weights.get(`${shard.prefix}.weight`, shard.shape);
  const ld = shard.shape[1];
  const offset = shard.firstRow * ld + shard.firstCol;
  return { ptr: ptr + offset * dtypeBytes(dtype), dtype, rows: shard.numRows, cols: shard.numCols, ld };
}

/** The shards' biases one after another, in float32. */
export function loadBias(device: Device, weights: WeightSource, spec: LinearSpec): DevicePtr {
  const bias = new Float32Array(spec.shards.reduce((rows, shard) => rows + shard.numRows, 0));
  let offset = 0;
  for (const shard of spec.shards) {
    const tensor = weights.get(`${shard.prefix}.bias`, [shard.shape[0]]);
    bias.set(readVector(tensor, shard.firstRow, shard.numRows), offset);
    offset += shard.numRows;
  }
  return device.uploadVector(bias, spec.purpose);
}
