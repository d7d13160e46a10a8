import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { ForwardContext } from './forward-context.ts';
import type { LayerContext } from './layer-context.ts';
import { headsOfRank, type OutputSource, QKVParallelLinear, RowParallelLinear } from './linear.ts';
import type { RotaryEmbedding } from './rotary-embedding.ts';
import type { WorkspaceBuffer } from './workspace.ts';

export interface EncoderSelfAttentionOptions {
  hiddenSize: number;
  numHeads: number;
  headDim: number;
  /** Of q, k and v, in this order. */
  qkv: readonly OutputSource[];
  qkvBias: boolean;
  /** Module name of the output projection. */
  out: string;
  outBias: boolean;
  /** null: queries and keys are not rotated. */
  rotary: RotaryEmbedding | null;
  /** Places before and behind a token that it sees; 0: all. */
  reach: number;
  maxNumTokens: number;
}

/** Self-attention in which every token of a sequence sees those before and behind it: it keeps no cache, and the sequence must be whole. */
export class EncoderSelfAttention {
  private readonly device: Device;
  private readonly qkvProj: QKVParallelLinear;
  private readonly outProj: RowParallelLinear;
  private readonly numHeads: number;
  private readonly qkv: WorkspaceBuffer;
  private readonly attended: WorkspaceBuffer;

  constructor(
    context: LayerContext,
    private readonly options: EncoderSelfAttentionOptions,
  ) {
    const { hiddenSize, numHeads, headDim, maxNumTokens } = options;
    const heads = { numHeads, numKvHeads: numHeads, headDim };
    this.device = context.device;
    this.numHeads = headsOfRank(heads, context.tensorParallel).numHeads;
    this.qkvProj = new QKVParallelLinear(context, options.qkv, hiddenSize, heads, options.qkvBias);
    this.outProj = new RowParallelLinear(context, options.out, numHeads * headDim, hiddenSize, options.outBias);
    context.work?.addAttention({
      numHeads: this.numHeads,
      numKvHeads: this.numHeads,
      headDim,
      window: options.reach === 0 ? 0 : 2 * options.reach + 1,
      cacheElementBytes: null,
    });
    const bytes = maxNumTokens * dtypeBytes(context.device.activationDtype);
    this.qkv = context.workspace.scratch('attention', 'qkv', bytes * this.qkvProj.outFeatures);
    this.attended = context.workspace.scratch('attention', 'attended', bytes * this.outProj.inFeatures);
  }

  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, context: ForwardContext): void {
    const { headDim, reach, rotary } = this.options;
    const { numTokens } = context;
    const width = this.numHeads * headDim;
    const bytes = width * dtypeBytes(this.device.activationDtype);
    const qkv = this.qkv.ptr;
    this.qkvProj.forward(x, qkv, numTokens);
    if (rotary !== null) this.rotate(rotary, context);
    this.device.ops.encoder_attention(
      qkv,
      qkv + bytes,
      qkv + 2 * bytes,
      3 * width,
      context.queryStartLoc,
      context.numSeqs,
      this.numHeads,
      this.numHeads,
      headDim,
      headDim ** -0.5,
      reach,
      this.attended.ptr,
      width,
    );
    this.outProj.forward(this.attended.ptr, out, numTokens);
  }

  private rotate({ cosSin, rotaryDim }: RotaryEmbedding, { positions, numTokens }: ForwardContext): void {
    const { headDim } = this.options;
    const [noWeight, eps, neoxHalves] = [0, 0, 0];
    this.device.ops.qk_norm_rope(
      this.qkv.ptr,
      3 * this.numHeads * headDim,
      positions,
      cosSin,
      noWeight,
      noWeight,
      eps,
      numTokens,
      this.numHeads,
      this.numHeads,
      headDim,
      rotaryDim,
      neoxHalves,
    );
  }
}
