import type { Device, DevicePtr } from '../device/device.ts';
import { DTYPE_CODES, type DType, dtypeBytes } from '../device/dtype.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { ForwardContext } from './forward-context.ts';
import type { LayerContext } from './layer-context.ts';
import type { HeadCounts } from './linear.ts';
import type { RotaryEmbedding } from './rotary-embedding.ts';

/** What one norm of q or k spans: each head by itself, or all heads of the token together. */
export type NormSpan = 'head' | 'projection';

export interface AttentionOptions extends HeadCounts {
  /** "model.layers.0.self_attn" */
  layerName: string;
  headDim: number;
  /** Multiplies the scores. */
  scale: number;
  /** null: queries and keys are not rotated. */
  rotary: RotaryEmbedding | null;
  /** Norms of queries and keys; their weights are float32 on the device, as long as the span. */
  qkNorm: { qWeight: DevicePtr; kWeight: DevicePtr; eps: number; span: NormSpan } | null;
  /** Tokens that a query sees, itself included; 0: all. */
  slidingWindow: number;
  /** Scores become cap * tanh(scores / cap); 0: off. */
  softCap: number;
  /** float32 [numHeads]: a logit that joins each head's softmax without a value; 0: none. */
  sinks: DevicePtr;
  /** First element of a head that is rotated; 0 when absent. */
  rotaryOffset?: number;
  /** Rotated elements are neighbours, not halves. */
  interleaved?: boolean;
  kvCacheDtype: DType;
  blockSize: number;
}

/** The part of an attention layer that has no weights of its own: norm and rotation of q and k, cache write, paged attention. */
export class Attention {
  private readonly cacheDtypeCode: number;
  private readonly qSize: number;
  private readonly kvSize: number;
  private readonly elementBytes: number;
  private readonly device: Device;
  private kvCache: DevicePtr = 0;

  constructor(
    { device, work }: LayerContext,
    private readonly options: AttentionOptions,
  ) {
    this.device = device;
    this.elementBytes = dtypeBytes(device.activationDtype);
    this.cacheDtypeCode = DTYPE_CODES[options.kvCacheDtype];
    const cacheElementBytes = dtypeBytes(options.kvCacheDtype);
    work?.addAttention({ ...options, window: options.slidingWindow, cacheElementBytes });
    this.qSize = options.numHeads * options.headDim;
    this.kvSize = options.numKvHeads * options.headDim;
  }

  get layerName(): string {
    return this.options.layerName;
  }

  kvCacheSpec(): KvCacheSpec {
    const { numKvHeads, headDim, blockSize, slidingWindow, kvCacheDtype } = this.options;
    return {
      kind: slidingWindow === 0 ? 'full' : 'sliding-window',
      blockSize,
      numKvHeads,
      headDim,
      dtype: kvCacheDtype,
      slidingWindow,
      pageBytes: this.device.kvBlockBytes(numKvHeads, headDim, blockSize, kvCacheDtype),
    };
  }

  bindKvCache(kvCache: DevicePtr): void {
    this.kvCache = kvCache;
  }

  /** act qkv [numTokens, q | k | v], changed in place, to act out [numTokens, numHeads * headDim]. */
  forward(qkv: DevicePtr, out: DevicePtr, context: ForwardContext): void {
    const { numHeads, numKvHeads, headDim, blockSize, layerName, scale, slidingWindow, softCap, sinks } = this.options;
    const { slotMapping, blockTables, ldBlockTable } = context.attention(layerName);
    const { ops } = this.device;
    const ldQkv = this.qSize + 2 * this.kvSize;
    const key = qkv + this.qSize * this.elementBytes;
    const value = key + this.kvSize * this.elementBytes;

    this.normAndRotate(qkv, ldQkv, context);
    ops.reshape_and_cache(
      key,
      value,
      ldQkv,
      slotMapping,
      this.kvCache,
      this.cacheDtypeCode,
      context.numTokens,
      numKvHeads,
      headDim,
      blockSize,
    );
    ops.paged_attention(
      qkv,
      ldQkv,
      this.kvCache,
      this.cacheDtypeCode,
      blockTables,
      ldBlockTable,
      context.seqLens,
      context.queryStartLoc,
      context.numSeqs,
      numHeads,
      numKvHeads,
      headDim,
      blockSize,
      scale,
      slidingWindow,
      softCap,
      sinks,
      out,
      this.qSize,
    );
  }

  private normAndRotate(qkv: DevicePtr, ldQkv: number, context: ForwardContext): void {
    const { numHeads, numKvHeads, headDim, rotary, qkNorm } = this.options;
    if (qkNorm?.span === 'projection') this.normProjections(qkv, ldQkv, context.numTokens);
    const headNorm = qkNorm?.span === 'head' ? qkNorm : null;
    if (rotary === null && headNorm === null) return;
    this.device.ops.qk_norm_rope(
      qkv + (this.options.rotaryOffset ?? 0) * this.elementBytes,
      ldQkv,
      context.positions,
      rotary?.cosSin ?? 0,
      headNorm?.qWeight ?? 0,
      headNorm?.kWeight ?? 0,
      headNorm?.eps ?? 0,
      context.numTokens,
      numHeads,
      numKvHeads,
      headDim,
      rotary?.rotaryDim ?? 0,
      this.options.interleaved ? 1 : 0,
    );
  }

  /** Norms all of q and all of k: to the kernel each is one wide head without a rotation. */
  private normProjections(qkv: DevicePtr, ldQkv: number, numTokens: number): void {
    const { qWeight, kWeight, eps } = this.options.qkNorm!;
    const key = qkv + this.qSize * this.elementBytes;
    const { ops } = this.device;
    ops.qk_norm_rope(qkv, ldQkv, 0, 0, qWeight, 0, eps, numTokens, 1, 0, this.qSize, 0, 0);
    ops.qk_norm_rope(key, ldQkv, 0, 0, kWeight, 0, eps, numTokens, 1, 0, this.kvSize, 0, 0);
  }
}
