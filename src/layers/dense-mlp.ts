import type { DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { type Activation, activation } from './activation.ts';
import { type LayerContext, splitEvenly } from './layer-context.ts';
import { ColumnParallelLinear, RowParallelLinear } from './linear.ts';
import type { FeedForward } from './mlp.ts';
import type { WorkspaceBuffer } from './workspace.ts';

export interface DenseMLPOptions {
  hiddenSize: number;
  intermediateSize: number;
  hiddenAct: string;
  /** Module names of the two projections. */
  up: string;
  down: string;
  maxNumTokens: number;
}

/** down(act(up(x))), both with biases: the feed-forward part of BERT. */
export class DenseMLP implements FeedForward {
  private readonly upProj: ColumnParallelLinear;
  private readonly downProj: RowParallelLinear;
  private readonly activate: Activation;
  private readonly intermediateSize: number;
  private readonly inner: WorkspaceBuffer;

  constructor(context: LayerContext, options: DenseMLPOptions) {
    const { hiddenSize, intermediateSize, maxNumTokens } = options;
    this.intermediateSize = splitEvenly(intermediateSize, context.tensorParallel, 'intermediate_size');
    this.upProj = new ColumnParallelLinear(context, options.up, hiddenSize, intermediateSize, true);
    this.downProj = new RowParallelLinear(context, options.down, intermediateSize, hiddenSize, true);
    this.activate = activation(context.device, options.hiddenAct);
    context.work?.addActivation(this.intermediateSize, this.intermediateSize);
    const bytes = maxNumTokens * this.intermediateSize * dtypeBytes(context.device.activationDtype);
    this.inner = context.workspace.scratch('mlp', 'inner', bytes);
  }

  forward(x: DevicePtr, out: DevicePtr, numTokens: number): void {
    this.upProj.forward(x, this.inner.ptr, numTokens);
    this.activate(this.inner.ptr, numTokens * this.intermediateSize);
    this.downProj.forward(this.inner.ptr, out, numTokens);
  }
}
