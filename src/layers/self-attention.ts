import type { DevicePtr } from '../device/device.ts';
import { type DType, dtypeBytes } from '../device/dtype.ts';
import { Attention, type NormSpan } from './attention.ts';
import type { ForwardContext } from './forward-context.ts';
import { readVector } from './host-vector.ts';
import type { LayerContext } from './layer-context.ts';
import { type HeadCounts, headsOfRank, type OutputSource, QKVParallelLinear, RowParallelLinear } from './linear.ts';
import { loadNormWeight, type NormWeightOptions } from './rms-norm.ts';
import type { RotaryEmbedding } from './rotary-embedding.ts';
import type { WorkspaceBuffer } from './workspace.ts';

export interface SelfAttentionOptions extends HeadCounts {
  /** Module name, which is also the layer's name in the KV cache: "model.layers.0.self_attn". */
  prefix: string;
  hiddenSize: number;
  headDim: number;
  /** Of q, k and v, in this order. */
  qkv: readonly OutputSource[];
  qkvBias: boolean;
  outBias: boolean;
  scale: number;
  rotary: RotaryEmbedding | null;
  /** null: no norms of q and k; else how their weights are read, the norm's epsilon and its span, a head by default. */
  qkNorm: (NormWeightOptions & { eps: number; span?: NormSpan }) | null;
  slidingWindow: number;
  softCap: number;
  /** `${prefix}.sinks` has a logit for each head that joins its softmax without a value. */
  sinks: boolean;
  kvCacheDtype: DType;
  blockSize: number;
  maxNumTokens: number;
}

/** The first half of a decoder layer. */
export interface AttentionBlock {
  readonly attention: Attention;
  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, context: ForwardContext): void;
}

/** Multi-head attention with its projections. */
export class SelfAttention implements AttentionBlock {
  readonly attention: Attention;
  private readonly qkvProj: QKVParallelLinear;
  private readonly oProj: RowParallelLinear;
  private readonly qkv: WorkspaceBuffer;
  private readonly attended: WorkspaceBuffer;

  constructor(context: LayerContext, options: SelfAttentionOptions) {
    const { device, weights, workspace } = context;
    const { prefix, hiddenSize, headDim, qkNorm, maxNumTokens } = options;
    const elementBytes = dtypeBytes(device.activationDtype);
    this.qkvProj = new QKVParallelLinear(context, options.qkv, hiddenSize, options, options.qkvBias);
    this.oProj = new RowParallelLinear(
      context,
      `${prefix}.o_proj`,
      options.numHeads * headDim,
      hiddenSize,
      options.outBias,
    );
    const whole = qkNorm?.span === 'projection';
    if (whole && context.tensorParallel.size > 1) {
      throw new Error(`${prefix}: a norm over a whole projection can't be split over tensor parallel ranks.`);
    }
    const [qSpan, kSpan] = whole ? [options.numHeads * headDim, options.numKvHeads * headDim] : [headDim, headDim];
    const heads = headsOfRank(options, context.tensorParallel);
    this.attention = new Attention(context, {
      ...options,
      ...heads,
      layerName: prefix,
      sinks: options.sinks ? loadSinks(context, prefix, options.numHeads, heads.numHeads) : 0,
      qkNorm: qkNorm && {
        qWeight: loadNormWeight(device, weights, `${prefix}.q_norm`, qSpan, qkNorm),
        kWeight: loadNormWeight(device, weights, `${prefix}.k_norm`, kSpan, qkNorm),
        eps: qkNorm.eps,
        span: qkNorm.span ?? 'head',
      },
    });
    this.qkv = workspace.scratch('attention', 'qkv', maxNumTokens * this.qkvProj.outFeatures * elementBytes);
    this.attended = workspace.scratch('attention', 'attended', maxNumTokens * this.oProj.inFeatures * elementBytes);
  }

  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, context: ForwardContext): void {
    this.qkvProj.forward(x, this.qkv.ptr, context.numTokens);
    this.attention.forward(this.qkv.ptr, this.attended.ptr, context);
    this.oProj.forward(this.attended.ptr, out, context.numTokens);
  }
}

/** The sinks of this rank's heads, in float32. */
function loadSinks(context: LayerContext, prefix: string, numHeads: number, ownHeads: number): DevicePtr {
  const tensor = context.weights.get(`${prefix}.sinks`, [numHeads]);
  const sinks = readVector(tensor, context.tensorParallel.rank * ownHeads, ownHeads);
  return context.device.uploadVector(sinks, 'weights');
}
