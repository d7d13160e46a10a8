import { dtypeBytes } from '../device/dtype.ts';

/** Floating point operations, and bytes that are read from memory and written to it. */
export interface Work {
  flops: number;
  readBytes: number;
  writeBytes: number;
}

/** A matrix product with weights. */
export interface Product {
  inFeatures: number;
  outFeatures: number;
  /** Of its weights. */
  bytes: number;
}

/** Experts of a mixture, and how many of them a token has. */
export interface ExpertChoice {
  numExperts: number;
  topK: number;
}

export interface AttentionShape {
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  /** Tokens that a query sees; 0: all. */
  window: number;
  /** Bytes of an element of keys and values in the cache; null: they are not kept. */
  cacheElementBytes: number | null;
}

/** What a step computes, as far as its work depends on it. */
export class StepLoad {
  numTokens = 0;
  numLogitRows = 0;
  /** By window: tokens that are seen, summed over the sequences. */
  readonly contexts: Float64Array;
  /** By window: pairs of a token and one that it sees, the causal mask left aside. */
  readonly pairs: Float64Array;

  constructor(readonly windows: readonly number[]) {
    this.contexts = new Float64Array(windows.length);
    this.pairs = new Float64Array(windows.length);
  }

  /** @param contextLen tokens of the sequence when these are computed */
  addSequence(numTokens: number, contextLen: number, numLogitRows: number): void {
    this.numTokens += numTokens;
    this.numLogitRows += numLogitRows;
    for (let i = 0; i < this.windows.length; i++) {
      const window = this.windows[i]!;
      const context = window === 0 ? contextLen : Math.min(contextLen, window);
      this.contexts[i]! += context;
      this.pairs[i]! += numTokens * context;
    }
  }
}

/**
 * What a model's steps take on one device, an estimate: its layers tell their part while they are built. Counted is what vLLM counts with
 * `--enable-mfu-metrics` (projections, attention, feed-forward, logits; no norms, routers or heads for pooling), each product's operands
 * as if they came from memory and its result went there.
 */
export class ModelWork {
  private readonly perToken: Work = { flops: 0, readBytes: 0, writeBytes: 0 };
  private readonly perLogitRow: Work = { flops: 0, readBytes: 0, writeBytes: 0 };
  /** Weights that every step reads. */
  private weightBytes = 0;
  /** By window. */
  private readonly attention = new Map<number, { flopsPerPair: number; bytesPerContext: number }>();
  /** By number of experts and of those that a token has. */
  private readonly mixtures = new Map<string, ExpertChoice & { bytesPerExpert: number }>();

  /** @param elementBytes of an activation */
  constructor(private readonly elementBytes: number) {}

  /** A product over all tokens. */
  addLinear(product: Product): void {
    this.weightBytes += product.bytes;
    this.addRows(this.perToken, product, 1, this.elementBytes);
  }

  /** The product that gives the logits. */
  addLogits(product: Product): void {
    this.weightBytes += product.bytes;
    this.addRows(this.perLogitRow, product, 1, dtypeBytes('float32'));
  }

  /** A product of which each token goes through the weights of its experts; `bytes` are those of all experts. */
  addExperts({ numExperts, topK }: ExpertChoice, product: Product): void {
    this.addRows(this.perToken, product, topK, this.elementBytes);
    const key = `${topK} of ${numExperts}`;
    const mixture = this.mixtures.get(key) ?? { numExperts, topK, bytesPerExpert: 0 };
    mixture.bytesPerExpert += product.bytes / numExperts;
    this.mixtures.set(key, mixture);
  }

  /** An activation between two products: elements of a token that it reads and writes. */
  addActivation(numRead: number, numWritten: number): void {
    this.perToken.readBytes += numRead * this.elementBytes;
    this.perToken.writeBytes += numWritten * this.elementBytes;
  }

  /** Scores and weighted sums; the projections around them are linear layers. */
  addAttention({ numHeads, numKvHeads, headDim, window, cacheElementBytes }: AttentionShape): void {
    const keyAndValue = 2 * numKvHeads * headDim;
    this.perToken.readBytes += numHeads * headDim * this.elementBytes;
    this.perToken.writeBytes += keyAndValue * (cacheElementBytes ?? 0);
    const sums = this.attention.get(window) ?? { flopsPerPair: 0, bytesPerContext: 0 };
    sums.flopsPerPair += 2 * 2 * numHeads * headDim;
    sums.bytesPerContext += keyAndValue * (cacheElementBytes ?? this.elementBytes);
    this.attention.set(window, sums);
  }

  newStep(): StepLoad {
    return new StepLoad([...this.attention.keys()]);
  }

  /** @param step as `newStep` made it */
  estimate(step: StepLoad): Work {
    const { perToken, perLogitRow } = this;
    const { numTokens, numLogitRows, windows, contexts, pairs } = step;
    const work: Work = {
      flops: numTokens * perToken.flops + numLogitRows * perLogitRow.flops,
      readBytes: this.weightBytes + numTokens * perToken.readBytes + numLogitRows * perLogitRow.readBytes,
      writeBytes: numTokens * perToken.writeBytes + numLogitRows * perLogitRow.writeBytes,
    };
    windows.forEach((window, i) => {
      const { flopsPerPair, bytesPerContext } = this.attention.get(window)!;
      work.flops += pairs[i]! * flopsPerPair;
      work.readBytes += contexts[i]! * bytesPerContext;
    });
    // As if no two tokens shared an expert before each has one.
    for (const { numExperts, topK, bytesPerExpert } of this.mixtures.values()) {
      work.readBytes += Math.min(numTokens * topK, numExperts) * bytesPerExpert;
    }
    return work;
  }

  private addRows(sum: Work, { inFeatures, outFeatures }: Product, numRows: number, outBytes: number): void {
    sum.flops += 2 * numRows * inFeatures * outFeatures;
    sum.readBytes += numRows * inFeatures * this.elementBytes;
    sum.writeBytes += numRows * outFeatures * outBytes;
  }
}
