import type { DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { type Activation, activation } from './activation.ts';
import { HeadLinear } from './head-linear.ts';
import type { LayerContext } from './layer-context.ts';
import { LayerNorm } from './layer-norm.ts';
import { countRows, type HeadRows, type PoolerHead } from './pooler-head.ts';
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
export class ClassificationHead implements PoolerHead {
  readonly width: number;
  private readonly hiddenSize: number;
  private readonly dense: HeadLinear | null;
  private readonly activate: Activation | null;
  private readonly norm: LayerNorm | null;
  private readonly classifier: HeadLinear;
  private readonly inner: WorkspaceBuffer;
  private readonly logits: WorkspaceBuffer;

  constructor(context: LayerContext, options: ClassificationHeadOptions) {
    const { hiddenSize, numLabels, dense, maxRows } = options;
    const { device, workspace } = context;
    this.hiddenSize = hiddenSize;
    this.dense = dense && new HeadLinear(context, squareLayer(dense, hiddenSize));
    this.activate = dense && activation(device, dense.act);
    this.norm = dense?.norm
      ? new LayerNorm(context, dense.norm.prefix, hiddenSize, dense.norm.eps, dense.norm.bias)
      : null;
    this.classifier = new HeadLinear(context, {
      prefix: options.classifier,
      inFeatures: hiddenSize,
      outFeatures: numLabels,
      bias: options.classifierBias,
      isAdapted: false,
      isClassifier: true,
    });
    this.width = this.classifier.outStride;
    this.inner = workspace.scratch('logits', 'class_hidden', maxRows * hiddenSize * dtypeBytes(device.activationDtype));
    this.logits = workspace.scratch('logits', 'class_logits', maxRows * this.width * dtypeBytes('float32'));
  }

  widthOf(slot: number | null): number {
    return this.classifier.widthOf(slot);
  }

  forward(pooled: DevicePtr, groups: readonly HeadRows[]): DevicePtr {
    const rows = countRows(groups);
    let hidden = pooled;
    if (this.dense !== null) {
      hidden = this.inner.ptr;
      this.dense.forward(pooled, hidden, groups);
      this.activate?.(hidden, rows * this.hiddenSize);
      this.norm?.forward(hidden, hidden, rows);
    }
    this.classifier.forwardFloat32(hidden, this.logits.ptr, groups);
    return this.logits.ptr;
  }
}

function squareLayer({ prefix, bias }: { prefix: string; bias: boolean }, size: number) {
  return { prefix, inFeatures: size, outFeatures: size, bias, isAdapted: true };
}
