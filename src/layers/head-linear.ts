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
}

/** A linear layer of a head. Its few weights are not worth quantizing. */
export class HeadLinear {
  private readonly base: LinearKernel;
  private readonly adapter: LinearAdapter | null;
  private readonly replaced: ReplacedLinear | null;
  private readonly actBytes: number;

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
    this.replaced = adapters?.addReplaceable({ prefix, shape: shard.shape, bias, dtype }) ?? null;
    this.actBytes = dtypeBytes(device.activationDtype);
  }

  /** act x [rows, inFeatures] to act out [rows, outFeatures]. */
  forward(x: DevicePtr, out: DevicePtr, groups: readonly HeadRows[]): void {
    const { inFeatures, outFeatures } = this.options;
    this.forEachKernel(groups, (kernel, row, numRows) => {
      const [from, to] = [x + row * inFeatures * this.actBytes, out + row * outFeatures * this.actBytes];
      kernel.apply(from, inFeatures, to, outFeatures, numRows);
    });
    this.adapter?.apply(x, inFeatures, out, outFeatures);
  }

  /** The same with float32 out, for a layer without what adapters add. */
  forwardFloat32(x: DevicePtr, out: DevicePtr, groups: readonly HeadRows[]): void {
    const { inFeatures, outFeatures } = this.options;
    this.forEachKernel(groups, (kernel, row, numRows) => {
      const [from, to] = [x + row * inFeatures * this.actBytes, out + row * outFeatures * dtypeBytes('float32')];
      kernel.applyFloat32(from, inFeatures, to, outFeatures, numRows);
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
