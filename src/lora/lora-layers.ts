import type { Device, DevicePtr, StagingBuffer } from '../device/device.ts';
import { DTYPE_CODES, type FloatDType } from '../device/dtype.ts';
import { uploadBytes } from '../device/upload-bytes.ts';
import type { LinearAdapter, LinearAdapters, ReplaceableLinear, ReplacedLinear } from '../layers/linear-adapters.ts';
import type { LinearShard } from '../layers/linear-method.ts';
import { blockLayout, MAX_SLICES, packBlock } from './adapter-block.ts';
import type { AdaptableModules, AdapterWeights, ModuleWeights } from './adapter-weights.ts';
import { hostMatrix } from './host-matrix.ts';
import type { LoRABatch } from './lora-batch.ts';
import { ReplacedLayer } from './replaced-layer.ts';

const PURPOSE = 'LoRA weights';

export interface LoRALayersOptions {
  /** Adapters that are kept at a time. */
  numSlots: number;
  /** Type that adapters are kept in. */
  dtype: FloatDType;
  /** Most classes of an adapter's head; null: those of the model's. Default null. */
  maxClasses?: number | null;
}

/** The linear layers of a model that adapters may change, with the adapters' weights for them by slot. */
export class LoRALayers implements LinearAdapters {
  /** By the parts of checkpoint matrices that they are made of. */
  private readonly byShards = new Map<string, LoRALayer>();
  /** By module name. */
  private readonly replaceable = new Map<string, ReplacedLayer>();
  private batch: LoRABatch | null = null;

  constructor(
    private readonly device: Device,
    private readonly options: LoRALayersOptions,
  ) {}

  get numSlots(): number {
    return this.options.numSlots;
  }

  get maxClasses(): number | null {
    return this.options.maxClasses ?? null;
  }

  /** A model that is loaded again, after sleep, finds its layers here. */
  add(shards: readonly LinearShard[]): LinearAdapter {
    const key = JSON.stringify(shards);
    const known = this.byShards.get(key);
    if (known !== undefined) return known;
    const layer = new LoRALayer(this.device, this.options, shards, () => this.batch);
    this.byShards.set(key, layer);
    return layer;
  }

  addReplaceable(layer: ReplaceableLinear): ReplacedLinear {
    const known = this.replaceable.get(layer.prefix);
    if (known !== undefined) return known;
    const replaced = new ReplacedLayer(this.device, PURPOSE, layer);
    this.replaceable.set(layer.prefix, replaced);
    return replaced;
  }

  /** The model's layers with the shapes of their whole matrices. */
  modules(): AdaptableModules {
    return {
      linear: new Map(
        this.layers.flatMap((layer) => layer.slices.map(({ prefix, shape }) => [prefix, shape] as const)),
      ),
      replaceable: new Map([...this.replaceable].map(([prefix, { layer }]) => [prefix, layer])),
    };
  }

  /** Bytes of an adapter of that rank which changes every layer. */
  bytesOfRank(rank: number): number {
    return this.layers.reduce((bytes, layer) => bytes + layer.bytesOfRank(rank), 0);
  }

  private get layers(): LoRALayer[] {
    return [...this.byShards.values()];
  }

  /** Which rows of the step that is enqueued next have adapters. */
  setBatch(batch: LoRABatch | null): void {
    this.batch = batch;
  }

  /** Puts an adapter into a free slot. What it is read from may be closed afterwards. */
  fill(slot: number, { linear, saved }: AdapterWeights): void {
    for (const layer of this.layers) layer.fill(slot, linear);
    for (const [module, weights] of saved) this.replaceable.get(module)!.fill(slot, weights);
  }

  /** Frees a slot, once the steps that are enqueued are done with it. */
  clear(slot: number): void {
    this.device.wait(this.device.record());
    for (const layer of this.layers) layer.clear(slot);
    for (const layer of this.replaceable.values()) layer.clear(slot);
  }

  close(): void {
    for (let slot = 0; slot < this.numSlots; slot++) this.clear(slot);
    for (const layer of this.layers) layer.close();
  }
}

/** One linear layer: a slice of its output for each module of the checkpoint that it is made of. */
class LoRALayer implements LinearAdapter {
  readonly slices: readonly LinearShard[];
  private readonly columns: number[];
  private readonly inFeatures: number;
  private readonly outFeatures: number;
  private readonly dtypeCode: number;
  /** i32 [numSlices + 1] */
  private readonly sliceOffsets: DevicePtr;
  /** i64 [numSlots]: addresses of blocks, 0 where the slot's adapter leaves the layer alone. */
  private readonly table: StagingBuffer;
  private readonly blocks: BigInt64Array;

  constructor(
    private readonly device: Device,
    private readonly options: LoRALayersOptions,
    shards: readonly LinearShard[],
    private readonly currentBatch: () => LoRABatch | null,
  ) {
    this.slices = joinNeighbours(shards);
    if (this.slices.length > MAX_SLICES) {
      throw new Error(
        `${shards[0]!.prefix}: ${this.slices.length} modules in one layer; adapters can change at most ${MAX_SLICES}.`,
      );
    }
    this.columns = this.slices.map(({ numRows }) => numRows);
    this.inFeatures = shards[0]!.numCols;
    this.outFeatures = this.columns.reduce((sum, count) => sum + count, 0);
    this.dtypeCode = DTYPE_CODES[options.dtype];
    const offsets = new Int32Array(this.columns.length + 1);
    this.columns.forEach((count, s) => {
      offsets[s + 1] = offsets[s]! + count;
    });
    this.sliceOffsets = uploadBytes(device, new Uint8Array(offsets.buffer), PURPOSE);
    this.table = device.staging(options.numSlots * BigInt64Array.BYTES_PER_ELEMENT, PURPOSE);
    this.blocks = new BigInt64Array(this.table.host);
    this.table.upload();
  }

  apply(x: DevicePtr, ldX: number, out: DevicePtr, ldOut: number): void {
    const batch = this.currentBatch();
    if (batch === null) return;
    this.device.ops.add_lora(
      x,
      ldX,
      batch.rows,
      batch.groupOffsets,
      batch.groupSlots,
      batch.numRows,
      batch.numGroups,
      this.table.ptr,
      this.dtypeCode,
      this.sliceOffsets,
      this.slices.length,
      batch.maxRank,
      out,
      ldOut,
      this.outFeatures,
      this.inFeatures,
    );
  }

  bytesOfRank(rank: number): number {
    const { inFeatures, columns } = this;
    return blockLayout(rank, { inFeatures, columns, dtype: this.options.dtype }).bytes;
  }

  fill(slot: number, weights: ReadonlyMap<string, ModuleWeights>): void {
    const own = this.slices.map((slice) => this.sliceWeights(slice, weights.get(slice.prefix)));
    if (own.every((slice) => slice === null)) return;
    const { inFeatures, columns } = this;
    const block = packBlock(own, { inFeatures, columns, dtype: this.options.dtype });
    this.blocks[slot] = BigInt(uploadBytes(this.device, block, PURPOSE));
    this.table.upload();
  }

  clear(slot: number): void {
    const address = Number(this.blocks[slot]!);
    if (address === 0) return;
    this.device.free(address);
    this.blocks[slot] = 0n;
    this.table.upload();
  }

  close(): void {
    this.device.free(this.sliceOffsets);
    this.table.free();
  }

  private sliceWeights({ firstRow, numRows, firstCol, numCols }: LinearShard, weights: ModuleWeights | undefined) {
    if (weights === undefined) return null;
    const { rank, scale, a, b } = weights;
    const { dtype } = this.options;
    return {
      rank,
      scale,
      a: hostMatrix(a, dtype, { firstCol, numCols }),
      b: hostMatrix(b, dtype, { firstRow, numRows }),
    };
  }
}

/** Parts of one matrix that follow each other are one slice: a checkpoint's qkv_proj has one A for all three. */
function joinNeighbours(shards: readonly LinearShard[]): LinearShard[] {
  const joined: LinearShard[] = [];
  for (const shard of shards) {
    const last = joined.at(-1);
    if (last !== undefined && last.prefix === shard.prefix && last.firstRow + last.numRows === shard.firstRow) {
      joined[joined.length - 1] = { ...last, numRows: last.numRows + shard.numRows };
    } else {
      joined.push(shard);
    }
  }
  return joined;
}
