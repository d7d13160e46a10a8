import type { DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { LayerContext } from './layer-context.ts';
import type { LinearAdapter, ReplacedLinear } from './linear-adapters.ts';
import { type LinearKernel, type LinearShard, unquantizedLinearMethod } from './linear-method.ts';
import type { HeadRows } from './pooler-head.ts';

export interface HeadLinearOptions {
  /** Module name in the checkpoint. */
  prefix: string;
  inFeatures: number;
  outFeatures: number;
  bias: boolean;
  /** Whether adapters may add to it. They may bring a whole matrix in its place in any case. */
  isAdapted: boolean;
  /** Its output is classes: adapters' own matrices may have another number of them. Default false. */
  isClassifier?: boolean;
}

/** A linear layer of a head. Its few weights are not worth quantizing. */
export class HeadLinear {
  private readonly base: LinearKernel;
  private readonly adapter: LinearAdapter | null;
  private readonly replaced: ReplacedLinear | null;
  private readonly actBytes: number;
  /** Elements from one row of the output to the next. */
  readonly outStride: number;

  constructor(
    context: LayerContext,
    private readonly options: HeadLinearOptions,
  ) {
    const { device, weights, dtype, adapters = null } = context;
    const { prefix, inFeatures, outFeatures, bias, isAdapted } = options;
    const shard: LinearShard = {
      prefix,
      shape: [outFeatures, inFeatures],
      firstRow: 0,
      numRows: outFeatures,
      firstCol: 0,
      numCols: inFeatures,
    };
    this.base = unquantizedLinearMethod.load(device, weights, dtype, { shards: [shard], bias, purpose: 'weights' });
    this.adapter = isAdapted ? (adapters?.add([shard]) ?? null) : null;
    const maxClasses = options.isClassifier === true ? (adapters?.maxClasses ?? null) : null;
    const maxRows = options.isClassifier === true ? Math.max(outFeatures, maxClasses ?? 0) : null;
    this.replaced = adapters?.addReplaceable({ prefix, shape: shard.shape, maxRows, bias, dtype }) ?? null;
    this.outStride = maxRows ?? outFeatures;
    this.actBytes = dtypeBytes(device.activationDtype);
  }

  /** Elements of an output row of the adapter in a slot, or of the base model. */
  widthOf(slot: number | null): number {
    return (slot === null ? null : this.replaced?.rowsOf(slot)) ?? this.options.outFeatures;
  }

  /** act x [rows, inFeatures] to act out [rows, outStride]. */
  forward(x: DevicePtr, out: DevicePtr, groups: readonly HeadRows[]): void {
    const { outStride } = this;
    const { inFeatures } = this.options;
    this.forEachKernel(groups, (kernel, row, numRows) => {
      const [from, to] = [x + row * inFeatures * this.actBytes, out + row * outStride * this.actBytes];
      kernel.apply(from, inFeatures, to, outStride, numRows);
    });
    this.adapter?.apply(x, inFeatures, out, outStride);
  }

  /** The same with float32 out, for a layer without what adapters add. */
  forwardFloat32(x: DevicePtr, out: DevicePtr, groups: readonly HeadRows[]): void {
    const { outStride } = this;
    const { inFeatures } = this.options;
    this.forEachKernel(groups, (kernel, row, numRows) => {
      const [from, to] = [x + row * inFeatures * this.actBytes, out + row * outStride * dtypeBytes('float32')];
      kernel.applyFloat32(from, inFeatures, to, outStride, numRows);
    });
  }

  /** Neighbours with the same weights are one product. */
  private forEachKernel(
    groups: readonly HeadRows[],
    run: (kernel: LinearKernel, firstRow: number, numRows: number) => void,
  ): void {
    let [first, count] = [0, 0];
    let current = this.base;
    for (const { slot, numRows } of groups) {
      const kernel = (slot === null ? null : this.replaced?.kernelOf(slot)) ?? this.base;
      if (kernel !== current && count > 0) {
        run(current, first, count);
        first += count;
        count = 0;
      }
      current = kernel;
      count += numRows;
    }
    if (count > 0) run(current, first, count);
  }
}
