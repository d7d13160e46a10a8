import type { DevicePtr } from '../device/device.ts';
import { type LayerContext, splitEvenly, type TensorParallel } from './layer-context.ts';
import type { LinearAdapter } from './linear-adapters.ts';
import type { LinearKernel, LinearShard } from './linear-method.ts';

/** Output features in the checkpoint: a whole matrix, or some rows of one that holds several projections. */
export interface OutputSource {
  prefix: string;
  firstRow: number;
  numRows: number;
  /** Rows of the whole matrix. */
  tensorRows: number;
}

/** Projections that the checkpoint keeps apart: q_proj, k_proj, v_proj. */
export function separateSources(projections: Readonly<Record<string, number>>): OutputSource[] {
  return Object.entries(projections).map(([prefix, numRows]) => ({
    prefix,
    firstRow: 0,
    numRows,
    tensorRows: numRows,
  }));
}

/** Projections that the checkpoint stacks in one matrix: qkv_proj. */
export function fusedSources(prefix: string, sizes: readonly number[]): OutputSource[] {
  const tensorRows = sizes.reduce((total, size) => total + size, 0);
  let firstRow = 0;
  return sizes.map((numRows) => {
    const source = { prefix, firstRow, numRows, tensorRows };
    firstRow += numRows;
    return source;
  });
}

/** A matrix product with this rank's share of a weight, and what adapters add to it. */
abstract class Linear {
  private readonly kernel: LinearKernel;
  private readonly adapter: LinearAdapter | null;
  /** Input features on this rank. */
  readonly inFeatures: number;
  /** Output features on this rank. */
  readonly outFeatures: number;

  constructor(context: LayerContext, shards: readonly LinearShard[], bias: boolean) {
    this.inFeatures = shards[0]!.numCols;
    this.outFeatures = shards.reduce((rows, shard) => rows + shard.numRows, 0);
    const spec = { shards, bias, purpose: 'weights' };
    this.kernel = context.linearMethod.load(context.device, context.weights, context.dtype, spec);
    this.adapter = context.adapters?.add(shards) ?? null;
    const { inFeatures, outFeatures, kernel } = this;
    context.work?.addLinear({ inFeatures, outFeatures, bytes: kernel.bytes });
  }

  /** Enqueues out = x · Wᵀ + bias: act x [numTokens, inFeatures] to act out [numTokens, outFeatures], both dense. */
  forward(x: DevicePtr, out: DevicePtr, numTokens: number): void {
    this.kernel.apply(x, this.inFeatures, out, this.outFeatures, numTokens);
    this.adapter?.apply(x, this.inFeatures, out, this.outFeatures);
  }
}

/** Several projections of one input as one product; each is split by output features over the ranks. */
export class MergedColumnParallelLinear extends Linear {
  constructor(context: LayerContext, sources: readonly OutputSource[], inFeatures: number, bias: boolean) {
    const { tensorParallel } = context;
    const shards = sources.map((source) => {
      const numRows = splitEvenly(source.numRows, tensorParallel, `Output size of ${source.prefix}`);
      return columnShard(source, inFeatures, numRows, numRows * tensorParallel.rank);
    });
    super(context, shards, bias);
  }
}

/** One projection, split by output features over the ranks. */
export class ColumnParallelLinear extends MergedColumnParallelLinear {
  constructor(context: LayerContext, prefix: string, inFeatures: number, outFeatures: number, bias: boolean) {
    super(context, separateSources({ [prefix]: outFeatures }), inFeatures, bias);
  }
}

export interface HeadCounts {
  numHeads: number;
  numKvHeads: number;
}

/** A rank's heads. With fewer kv heads than ranks, several ranks keep the same kv head. */
export function headsOfRank({ numHeads, numKvHeads }: HeadCounts, tensorParallel: TensorParallel): HeadCounts {
  const { size } = tensorParallel;
  if (numKvHeads < size && size % numKvHeads !== 0) {
    throw new Error(
      `Tensor parallel size is ${size}; expected a divisor or a multiple of the ${numKvHeads} key-value heads.`,
    );
  }
  return {
    numHeads: splitEvenly(numHeads, tensorParallel, 'Number of attention heads'),
    numKvHeads: numKvHeads < size ? 1 : splitEvenly(numKvHeads, tensorParallel, 'Number of key-value heads'),
  };
}

/** Query, key and value as one product: rows are [q heads | k heads | v heads] of this rank. */
export class QKVParallelLinear extends Linear {
  /** @param sources of q, k and v, in this order */
  constructor(
    context: LayerContext,
    sources: readonly OutputSource[],
    inFeatures: number,
    heads: HeadCounts & { headDim: number },
    bias: boolean,
  ) {
    const { rank, size } = context.tensorParallel;
    const own = headsOfRank(heads, context.tensorParallel);
    const firstKvHead = Math.floor((rank * heads.numKvHeads) / size);
    const [q, k, v] = sources as [OutputSource, OutputSource, OutputSource];
    const qRows = own.numHeads * heads.headDim;
    const kvRows = own.numKvHeads * heads.headDim;
    const kvStart = firstKvHead * heads.headDim;
    const shards = [
      columnShard(q, inFeatures, qRows, rank * qRows),
      columnShard(k, inFeatures, kvRows, kvStart),
      columnShard(v, inFeatures, kvRows, kvStart),
    ];
    super(context, shards, bias);
  }
}

/** A projection split by input features over the ranks: the ranks' outputs add up to the whole, so rank 0 alone adds the bias. */
export class RowParallelLinear extends Linear {
  constructor(context: LayerContext, prefix: string, inFeatures: number, outFeatures: number, bias: boolean) {
    const { rank } = context.tensorParallel;
    const numCols = splitEvenly(inFeatures, context.tensorParallel, `Input size of ${prefix}`);
    const shard: LinearShard = {
      prefix,
      shape: [outFeatures, inFeatures],
      firstRow: 0,
      numRows: outFeatures,
      firstCol: rank * numCols,
      numCols,
    };
    super(context, [shard], bias && rank === 0);
  }
}

function columnShard(source: OutputSource, inFeatures: number, numRows: number, skipRows: number): LinearShard {
  return {
    prefix: source.prefix,
    shape: [source.tensorRows, inFeatures],
    firstRow: source.firstRow + skipRows,
    numRows,
    firstCol: 0,
    numCols: inFeatures,
  };
}
