import type { Device, DevicePtr } from '../device/device.ts';
import { type DType, dtypeBytes } from '../device/dtype.ts';
import { Attention } from './attention.ts';
import type { ForwardContext } from './forward-context.ts';
import type { LayerContext } from './layer-context.ts';
import { fusedSources, MergedColumnParallelLinear, RowParallelLinear } from './linear.ts';
import { RMSNorm } from './rms-norm.ts';
import type { RotaryEmbedding } from './rotary-embedding.ts';
import type { AttentionBlock } from './self-attention.ts';
import type { WorkspaceBuffer } from './workspace.ts';

export interface LatentAttentionOptions {
  /** Module name, which is also the layer's name in the KV cache. */
  prefix: string;
  hiddenSize: number;
  numHeads: number;
  /** Width of the latent queries; null: queries come straight from the hidden state. */
  qLoraRank: number | null;
  /** Width of the latent keys and values. */
  kvLoraRank: number;
  /** Elements of a query or key head that are not rotated, and those behind them that are. */
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
  vHeadDim: number;
  bias: boolean;
  rmsNormEps: number;
  scale: number;
  rotary: RotaryEmbedding;
  interleaved: boolean;
  kvCacheDtype: DType;
  blockSize: number;
  maxNumTokens: number;
}

/**
 * Multi-head latent attention (DeepSeek-V2, section 2.1) in its expanded form: the latent is projected to keys and values of every head,
 * which are cached; a value is padded with zeros to a key's size. The rotated part of a key is one for all heads.
 */
export class LatentAttention implements AttentionBlock {
  readonly attention: Attention;
  private readonly device: Device;
  private readonly headDim: number;
  private readonly elementBytes: number;
  private readonly queries: QueryProjection;
  private readonly kvLatentProj: MergedColumnParallelLinear;
  private readonly kRopeProj: MergedColumnParallelLinear;
  private readonly kvLatentNorm: RMSNorm;
  private readonly kvProj: MergedColumnParallelLinear;
  private readonly oProj: RowParallelLinear;
  private readonly kvLatent: WorkspaceBuffer;
  private readonly kRope: WorkspaceBuffer;
  private readonly kv: WorkspaceBuffer;
  private readonly qkv: WorkspaceBuffer;
  private readonly attended: WorkspaceBuffer;
  private readonly values: WorkspaceBuffer;

  /** Throws an Error where values are larger than keys. */
  constructor(
    context: LayerContext,
    private readonly options: LatentAttentionOptions,
  ) {
    const { device, workspace } = context;
    const { prefix, hiddenSize, numHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, bias } = options;
    const headDim = qkNopeHeadDim + qkRopeHeadDim;
    if (vHeadDim > headDim)
      throw new Error(`${prefix}: values of ${vHeadDim} elements; expected at most a key's ${headDim}.`);
    this.device = device;
    this.headDim = headDim;
    this.elementBytes = dtypeBytes(device.activationDtype);
    this.queries = new QueryProjection(context, options, numHeads * headDim);
    const [latent, rope] = fusedSources(`${prefix}.kv_a_proj_with_mqa`, [kvLoraRank, qkRopeHeadDim]);
    this.kvLatentProj = new MergedColumnParallelLinear(context, [latent!], hiddenSize, bias);
    this.kRopeProj = new MergedColumnParallelLinear(context, [rope!], hiddenSize, bias);
    this.kvLatentNorm = new RMSNorm(context, `${prefix}.kv_a_layernorm`, kvLoraRank, options.rmsNormEps);
    const kvSize = numHeads * (qkNopeHeadDim + vHeadDim);
    this.kvProj = new MergedColumnParallelLinear(
      context,
      fusedSources(`${prefix}.kv_b_proj`, [kvSize]),
      kvLoraRank,
      false,
    );
    this.oProj = new RowParallelLinear(context, `${prefix}.o_proj`, numHeads * vHeadDim, hiddenSize, bias);
    this.attention = new Attention(context, {
      layerName: prefix,
      numHeads,
      numKvHeads: numHeads,
      headDim,
      scale: options.scale,
      rotary: options.rotary,
      rotaryOffset: qkNopeHeadDim,
      interleaved: options.interleaved,
      qkNorm: null,
      slidingWindow: 0,
      softCap: 0,
      sinks: 0,
      kvCacheDtype: options.kvCacheDtype,
      blockSize: options.blockSize,
    });
    const scratch = (name: string, size: number) =>
      workspace.scratch('attention', name, options.maxNumTokens * size * this.elementBytes);
    this.kvLatent = scratch('kv_latent', kvLoraRank);
    this.kRope = scratch('k_rope', qkRopeHeadDim);
    this.kv = scratch('kv', kvSize);
    this.qkv = scratch('qkv', 3 * numHeads * headDim);
    this.attended = scratch('attended', numHeads * headDim);
    this.values = scratch('values', numHeads * vHeadDim);
  }

  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, context: ForwardContext): void {
    const { numTokens } = context;
    const { numHeads, vHeadDim } = this.options;
    const { headDim } = this;
    this.placeQueries(x, numTokens);
    this.placeKeysAndValues(x, numTokens);
    this.attention.forward(this.qkv.ptr, this.attended.ptr, context);
    this.device.ops.copy_heads(
      this.attended.ptr,
      numHeads * headDim,
      headDim,
      this.values.ptr,
      numHeads * vHeadDim,
      vHeadDim,
      numTokens,
      numHeads,
      vHeadDim,
      vHeadDim,
    );
    this.oProj.forward(this.values.ptr, out, numTokens);
  }

  private placeQueries(x: DevicePtr, numTokens: number): void {
    const { headDim } = this;
    const queries = this.queries.forward(x, numTokens);
    this.place(queries, this.options.numHeads * headDim, headDim, 0, numTokens, headDim, headDim);
  }

  private placeKeysAndValues(x: DevicePtr, numTokens: number): void {
    const { numHeads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = this.options;
    const { headDim } = this;
    this.kvLatentProj.forward(x, this.kvLatent.ptr, numTokens);
    this.kRopeProj.forward(x, this.kRope.ptr, numTokens);
    this.kvLatentNorm.forward(this.kvLatent.ptr, this.kvLatent.ptr, numTokens);
    this.kvProj.forward(this.kvLatent.ptr, this.kv.ptr, numTokens);

    const kvHead = qkNopeHeadDim + vHeadDim;
    const ldKv = numHeads * kvHead;
    const keys = numHeads * headDim;
    const values = this.kv.ptr + qkNopeHeadDim * this.elementBytes;
    this.place(this.kv.ptr, ldKv, kvHead, keys, numTokens, qkNopeHeadDim, qkNopeHeadDim);
    this.place(this.kRope.ptr, qkRopeHeadDim, 0, keys + qkNopeHeadDim, numTokens, qkRopeHeadDim, qkRopeHeadDim);
    this.place(values, ldKv, kvHead, 2 * keys, numTokens, vHeadDim, headDim);
  }

  /** Copies a part of each head to the rows of q | k | v, from element `offset` of a row on. */
  private place(
    x: DevicePtr,
    ldX: number,
    headStride: number,
    offset: number,
    numTokens: number,
    width: number,
    paddedWidth: number,
  ): void {
    const { numHeads } = this.options;
    const { headDim } = this;
    const out = this.qkv.ptr + offset * this.elementBytes;
    const { ops } = this.device;
    ops.copy_heads(x, ldX, headStride, out, 3 * numHeads * headDim, headDim, numTokens, numHeads, width, paddedWidth);
  }
}

/** Queries of all heads, by way of a normed latent where the model has one. */
class QueryProjection {
  private readonly latentProj: MergedColumnParallelLinear | null = null;
  private readonly latentNorm: RMSNorm | null = null;
  private readonly proj: MergedColumnParallelLinear;
  private readonly latent: WorkspaceBuffer;
  private readonly out: WorkspaceBuffer;

  constructor(context: LayerContext, options: LatentAttentionOptions, size: number) {
    const { prefix, hiddenSize, qLoraRank, bias, maxNumTokens } = options;
    if (qLoraRank !== null) {
      const sources = fusedSources(`${prefix}.q_a_proj`, [qLoraRank]);
      this.latentProj = new MergedColumnParallelLinear(context, sources, hiddenSize, bias);
      this.latentNorm = new RMSNorm(context, `${prefix}.q_a_layernorm`, qLoraRank, options.rmsNormEps);
    }
    const sources = fusedSources(`${prefix}.${qLoraRank === null ? 'q_proj' : 'q_b_proj'}`, [size]);
    this.proj = new MergedColumnParallelLinear(context, sources, qLoraRank ?? hiddenSize, false);
    const rowBytes = maxNumTokens * dtypeBytes(context.device.activationDtype);
    this.latent = context.workspace.scratch('attention', 'q_latent', (qLoraRank ?? 0) * rowBytes);
    this.out = context.workspace.scratch('attention', 'q', size * rowBytes);
  }

  /** The address of act [numTokens, size]. */
  forward(x: DevicePtr, numTokens: number): DevicePtr {
    let input = x;
    if (this.latentProj !== null && this.latentNorm !== null) {
      input = this.latent.ptr;
      this.latentProj.forward(x, input, numTokens);
      this.latentNorm.forward(input, input, numTokens);
    }
    this.proj.forward(input, this.out.ptr, numTokens);
    return this.out.ptr;
  }
}
