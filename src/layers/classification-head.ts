import type { DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { type Activation, activation } from './activation.ts';
import type { LayerContext } from './layer-context.ts';
import { LayerNorm } from './layer-norm.ts';
import { ColumnParallelLinear } from './linear.ts';
import { type LinearKernel, unquantizedLinearMethod } from './linear-method.ts';
import type { WorkspaceBuffer } from './workspace.ts';

export interface ClassificationHeadOptions {
  hiddenSize: number;
  numLabels: number;
  /** A layer before the classes, with an activation and perhaps a norm behind it; null: none. */
  dense: {
    prefix: string;
    bias: boolean;
    act: string;
    norm: { prefix: string; eps: number; bias: boolean } | null;
  } | null;
  /** Module name of the projection to the classes. */
  classifier: string;
  classifierBias: boolean;
  /** Most rows at once. */
  maxRows: number;
}

/** Pooled hidden states to logits of classes. */
export class ClassificationHead {
  readonly numLabels: number;
  private readonly hiddenSize: number;
  private readonly dense: ColumnParallelLinear | null;
  private readonly activate: Activation | null;
  private readonly norm: LayerNorm | null;
  private readonly classifier: LinearKernel;
  private readonly inner: WorkspaceBuffer;
  private readonly logits: WorkspaceBuffer;

  constructor(context: LayerContext, options: ClassificationHeadOptions) {
    const { hiddenSize, numLabels, dense, maxRows } = options;
    const { device, weights, workspace } = context;
    this.hiddenSize = hiddenSize;
    this.numLabels = numLabels;
    this.dense = dense && new ColumnParallelLinear(context, dense.prefix, hiddenSize, hiddenSize, dense.bias);
    this.activate = dense && activation(device, dense.act);
    this.norm = dense?.norm
      ? new LayerNorm(context, dense.norm.prefix, hiddenSize, dense.norm.eps, dense.norm.bias)
      : null;
    const shape = [numLabels, hiddenSize] as const;
    const whole = { firstRow: 0, numRows: numLabels, firstCol: 0, numCols: hiddenSize };
    // A few rows of weights, on which the answer hangs: they are not worth quantizing.
    this.classifier = unquantizedLinearMethod.load(device, weights, context.dtype, {
      shards: [{ prefix: options.classifier, shape, ...whole }],
      bias: options.classifierBias,
      purpose: 'weights',
    });
    this.inner = workspace.scratch('logits', 'class_hidden', maxRows * hiddenSize * dtypeBytes(device.activationDtype));
    this.logits = workspace.scratch('logits', 'class_logits', maxRows * numLabels * dtypeBytes('float32'));
  }

  /** act pooled [rows, hiddenSize] to float32 logits [rows, numLabels], whose address it returns; valid until the next forward. */
  forward(pooled: DevicePtr, rows: number): DevicePtr {
    let hidden = pooled;
    if (this.dense !== null) {
      hidden = this.inner.ptr;
      this.dense.forward(pooled, hidden, rows);
      this.activate?.(hidden, rows * this.hiddenSize);
      this.norm?.forward(hidden, hidden, rows);
    }
    this.classifier.applyFloat32(hidden, this.hiddenSize, this.logits.ptr, this.numLabels, rows);
    return this.logits.ptr;
  }
}
