import type { Device, DevicePtr, OpArgs, PackedLinear } from '../../src/device/device.ts';
import { type CacheDType, DTYPE_CODES, dtypeBytes, type FloatDType } from '../../src/device/dtype.ts';
import { OPS, type OpName } from '../../src/device/ops.ts';
import { QUANTIZATION_CODES, type QuantizationScheme } from '../../src/device/quantization-scheme.ts';
import type { HfConfig } from '../../src/models/hf-config.ts';
import { SAMPLING_ROW, SAMPLING_ROW_BYTES } from '../../src/sampling/sampling-row.ts';
import { randomGamma, seededRandom } from '../random.ts';
import { LoraLayer, type LoraShape } from './lora-layer.ts';

const BLOCK_SIZE = 16;
const F32 = 4;
/** bfloat16 of 0.0078: small enough that no sum of products overflows. */
const WEIGHT_BITS = 0x3c00;
/** Weights of one shape are cycled through so many bytes, so that they come from memory, as in a model of many layers. */
const CYCLED_BYTES = 256 * 2 ** 20;

/** One op on one shape. */
export interface KernelCase {
  op: OpName;
  shape: string;
  /** Bytes that the op must read and write at the least, and its floating point operations. */
  bytes: number;
  flops: number;
  /** Copies of the weights: a turn takes the one of its number modulo their number. */
  copies: number;
  /** Enqueues the op once. */
  enqueue(turn: number): void;
}

/** A batch of decode or prefill: so many sequences with so many new tokens each, at the end of `context` tokens. */
export interface KernelBatch {
  numSeqs: number;
  newTokens: number;
  context: number;
}

/** Buffers for the ops of one model, and the ops over them. */
export class KernelCases {
  private readonly cases: KernelCase[] = [];
  private readonly maxRows: number;
  private readonly x: DevicePtr;
  private readonly out: DevicePtr;
  private readonly kvCache: DevicePtr;
  private readonly kvBlocks: number;
  /** What ops change in place has buffers of its own, so that the others' input stays what it was. */
  private readonly inPlace: DevicePtr;
  private readonly logits: DevicePtr;
  /** Ids, slots, positions, indices, all 0; and what may be added again and again. */
  private readonly zeros: DevicePtr;

  constructor(
    private readonly device: Device,
    private readonly hf: HfConfig,
    private readonly dtype: FloatDType,
    private readonly cacheDtype: CacheDType,
    batches: readonly KernelBatch[],
    /** Of products with quantized weights beside the others; null: none. */
    private readonly scheme: QuantizationScheme | null = null,
    /** Adapters; null: none. */
    lora: LoraShape | null = null,
    /** Only these, and no weights for others; none: all. */
    private readonly wanted: readonly string[] = [],
  ) {
    this.maxRows = Math.max(...batches.map((batch) => batch.numSeqs * batch.newTokens));
    const widest = Math.max(2 * hf.intermediateSize, this.qkvWidth, hf.hiddenSize);
    const logitRows = Math.max(...batches.map((batch) => batch.numSeqs));
    const floats = Math.max(this.maxRows * widest, logitRows * hf.vocabSize);
    this.x = this.filled(floats);
    this.out = this.filled(floats);
    this.inPlace = this.filled(this.maxRows * widest);
    this.logits = this.randomLogits(logitRows * hf.vocabSize);
    this.zeros = device.alloc(this.maxRows * hf.hiddenSize * F32 + 4096, 'bench');
    this.kvBlocks = Math.max(...batches.map((batch) => batch.numSeqs * Math.ceil(batch.context / BLOCK_SIZE))) + 1;
    // Filled: memory that nobody has written is one page of zeros, which stays in the first cache.
    this.kvCache = this.filled(Math.ceil((this.kvBlocks * this.blockBytes) / F32));
    for (const batch of batches) this.addAttention(batch);
    for (const rows of new Set(batches.map((batch) => batch.numSeqs * batch.newTokens))) this.addRowOps(rows);
    this.addLinears(
      [...new Set(batches.map((batch) => batch.numSeqs * batch.newTokens))],
      [...new Set(batches.map((batch) => batch.numSeqs))],
    );
    if (lora !== null) this.addLora([...new Set(batches.map((batch) => batch.numSeqs * batch.newTokens))], lora);
    for (const rows of new Set(batches.map((batch) => batch.numSeqs))) this.addSampling(rows);
    this.addCopies();
  }

  all(): readonly KernelCase[] {
    return this.cases;
  }

  private get actBytes(): number {
    return dtypeBytes(this.device.activationDtype);
  }

  private get qkvWidth(): number {
    return (this.hf.numAttentionHeads + 2 * this.hf.numKeyValueHeads) * this.hf.headDim;
  }

  private get blockBytes(): number {
    return this.device.kvBlockBytes(this.hf.numKeyValueHeads, this.hf.headDim, BLOCK_SIZE, this.cacheDtype);
  }

  private wants(op: OpName): boolean {
    return this.wanted.length === 0 || this.wanted.includes(op);
  }

  private add<N extends OpName>(
    op: N,
    shape: string,
    work: { bytes: number; flops?: number; copies?: number },
    args: (turn: number) => OpArgs<N>,
  ): void {
    if (!this.wants(op)) return;
    const names = Object.keys(OPS[op].args) as (keyof OpArgs<N>)[];
    const run = this.device.ops[op];
    this.cases.push({
      op,
      shape,
      bytes: work.bytes,
      flops: work.flops ?? 0,
      copies: work.copies ?? 1,
      enqueue: (turn) => {
        const values = args(turn);
        run(...names.map((name) => values[name]));
      },
    });
  }

  private addRowOps(rows: number): void {
    const { hf, x, out, zeros, device } = this;
    const { hiddenSize: n, rmsNormEps: eps, vocabSize, intermediateSize } = hf;
    const weight = device.uploadVector(new Float32Array(n).fill(1), 'bench');
    const headWeight = device.uploadVector(new Float32Array(hf.headDim).fill(1), 'bench');
    const cosSin = device.uploadVector(new Float32Array(hf.headDim).fill(0.5), 'bench');
    const table = this.filled((vocabSize * n * dtypeBytes(this.dtype)) / F32);
    const common = { x, weight, out, rows, n, eps };
    const row = n * this.actBytes;
    this.add('embedding', `${rows} x ${n}`, { bytes: rows * (row + n * dtypeBytes(this.dtype)) }, () => ({
      ids: zeros,
      table,
      table_dtype: DTYPE_CODES[this.dtype],
      out,
      num_tokens: rows,
      hidden_size: n,
      vocab_size: vocabSize,
      scale: 1,
    }));
    this.add('rms_norm', `${rows} x ${n}`, { bytes: 2 * rows * row, flops: 4 * rows * n }, () => common);
    this.add('fused_add_rms_norm', `${rows} x ${n}`, { bytes: 4 * rows * row, flops: 5 * rows * n }, () => ({
      ...common,
      x: zeros,
      residual: this.inPlace,
    }));
    this.add('gather_rows', `${rows} x ${n}`, { bytes: 2 * rows * row }, () => ({ x, indices: zeros, out, rows, n }));
    this.add(
      'act_and_mul',
      `${rows} x ${intermediateSize}`,
      { bytes: 3 * rows * intermediateSize * this.actBytes, flops: 5 * rows * intermediateSize },
      () => ({ gate_up: x, out, rows, n: intermediateSize, kind: 0 }),
    );
    const rotated = (hf.numAttentionHeads + hf.numKeyValueHeads) * hf.headDim;
    this.add(
      'qk_norm_rope',
      `${rows} x ${rotated}`,
      { bytes: 2 * rows * rotated * this.actBytes, flops: 10 * rows * rotated },
      () => ({
        qkv: this.inPlace,
        ld_qkv: this.qkvWidth,
        positions: zeros,
        cos_sin: cosSin,
        q_weight: headWeight,
        k_weight: headWeight,
        eps,
        num_tokens: rows,
        num_heads: hf.numAttentionHeads,
        num_kv_heads: hf.numKeyValueHeads,
        head_dim: hf.headDim,
        rotary_dim: hf.headDim,
        interleaved: 0,
      }),
    );
    this.add('gather_token_ids', `${rows}`, { bytes: rows * 16 }, () => ({
      token_table: x,
      ld_table: 1,
      slots: zeros,
      positions: zeros,
      out,
      num_tokens: rows,
    }));
  }

  private addLinears(tokenRows: readonly number[], logitRows: readonly number[]): void {
    const { hiddenSize, intermediateSize, numAttentionHeads, headDim, vocabSize } = this.hf;
    const weights: [name: string, n: number, k: number, rows: readonly number[]][] = [
      ['qkv', this.qkvWidth, hiddenSize, tokenRows],
      ['o', hiddenSize, numAttentionHeads * headDim, tokenRows],
      ['gate_up', 2 * intermediateSize, hiddenSize, tokenRows],
      ['down', hiddenSize, intermediateSize, tokenRows],
      ['logits', vocabSize, hiddenSize, logitRows],
    ];
    for (const [name, n, k, allRows] of weights) {
      if (this.wants('linear')) this.addLinear(name, n, k, allRows);
      if (this.scheme !== null && this.wants('quantized_linear')) {
        this.addQuantizedLinear(name, n, k, allRows, this.scheme);
      }
    }
  }

  private addLinear(name: string, n: number, k: number, allRows: readonly number[]): void {
    const copies = this.packedCopies(n, k);
    for (const m of allRows) {
      const bytes = copies[0]!.bytes + m * (n + k) * this.actBytes;
      const shape = `${name}: ${m} x ${k} x ${n}`;
      this.add('linear', shape, { bytes, flops: 2 * m * n * k, copies: copies.length }, (turn) => {
        const w = copies[turn % copies.length]!.ptr;
        const w_dtype = DTYPE_CODES[this.dtype];
        return { x: this.x, ld_x: k, w, w_dtype, bias: 0, out: this.out, ld_out: n, m, n, k };
      });
    }
  }

  private addQuantizedLinear(
    name: string,
    n: number,
    k: number,
    allRows: readonly number[],
    scheme: QuantizationScheme,
  ): void {
    const source = { ptr: this.filled(n * k), dtype: 'float32' as const, rows: n, cols: k, ld: k };
    const weight = this.device.packQuantizedLinear([source], scheme, 'bench');
    this.device.free(source.ptr);
    const copies = Array.from({ length: Math.ceil(CYCLED_BYTES / weight.bytes) }, () => {
      const ptr = this.device.alloc(weight.bytes, 'bench');
      this.device.ops.copy_bytes(weight.ptr, ptr, weight.bytes);
      return ptr;
    });
    const code = QUANTIZATION_CODES[scheme];
    for (const m of allRows) {
      const bytes = weight.bytes + m * (n + k) * this.actBytes;
      const shape = `${name} ${scheme}: ${m} x ${k} x ${n}`;
      this.add('quantized_linear', shape, { bytes, flops: 2 * m * n * k, copies: copies.length }, (turn) => {
        const w = copies[turn % copies.length]!;
        return { x: this.x, ld_x: k, w, scheme: code, bias: 0, out: this.out, ld_out: n, m, n, k };
      });
    }
  }

  private addLora(allRows: readonly number[], shape: LoraShape): void {
    const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim } = this.hf;
    const kv = numKeyValueHeads * headDim;
    const layers: [name: string, k: number, columns: number[]][] = [
      ['qkv', hiddenSize, [numAttentionHeads * headDim, kv, kv]],
      ['o', numAttentionHeads * headDim, [hiddenSize]],
      ['gate_up', hiddenSize, [intermediateSize, intermediateSize]],
      ['down', intermediateSize, [hiddenSize]],
    ];
    for (const [name, k, columns] of layers) {
      const layer = new LoraLayer(this.device, this.dtype, shape, k, columns, CYCLED_BYTES);
      for (const rows of allRows) {
        const label = `${name}: ${rows} x ${k}, ${shape.numAdapters} of rank ${shape.rank}`;
        this.add('add_lora', label, layer.work(rows), layer.args(rows, this.x, this.inPlace));
      }
    }
  }

  private packedCopies(n: number, k: number): PackedLinear[] {
    const bytes = n * k * dtypeBytes(this.dtype);
    const source = { ptr: this.filled(Math.ceil(bytes / F32)), dtype: this.dtype, rows: n, cols: k, ld: k };
    const count = Math.max(1, Math.ceil(CYCLED_BYTES / bytes));
    return Array.from({ length: count }, () => this.device.packLinear([source], this.dtype, 'bench'));
  }

  private addAttention(batch: KernelBatch): void {
    const { hf } = this;
    const { numSeqs, newTokens, context } = batch;
    const rows = numSeqs * newTokens;
    const blocks = Math.ceil(context / BLOCK_SIZE);
    const tables = this.ints(Array.from({ length: numSeqs * blocks }, (_, i) => 1 + i));
    const seqLens = this.ints(new Array<number>(numSeqs).fill(context));
    const starts = this.ints(Array.from({ length: numSeqs + 1 }, (_, i) => i * newTokens));
    const slots = this.ints(
      Array.from({ length: rows }, (_, i) => BLOCK_SIZE + (i % ((this.kvBlocks - 1) * BLOCK_SIZE))),
    );
    const heads = { num_heads: hf.numAttentionHeads, num_kv_heads: hf.numKeyValueHeads, head_dim: hf.headDim };
    const cache = { kv_cache: this.kvCache, cache_dtype: DTYPE_CODES[this.cacheDtype], block_size: BLOCK_SIZE };
    const qWidth = hf.numAttentionHeads * hf.headDim;
    const kvWidth = hf.numKeyValueHeads * hf.headDim;
    // Of a causal square only the lower half is computed.
    const seen = newTokens * (context - newTokens) + (newTokens * (newTokens + 1)) / 2;
    this.add(
      'paged_attention',
      `${numSeqs} x ${newTokens} new of ${context}, ${this.cacheDtype}`,
      {
        bytes: numSeqs * blocks * this.blockBytes + 2 * rows * qWidth * this.actBytes,
        flops: 4 * numSeqs * seen * qWidth,
      },
      () => ({
        q: this.x,
        ld_q: qWidth,
        ...cache,
        block_tables: tables,
        ld_block_table: blocks,
        seq_lens: seqLens,
        query_start_loc: starts,
        num_seqs: numSeqs,
        ...heads,
        scale: hf.headDim ** -0.5,
        sliding_window: 0,
        soft_cap: 0,
        sinks: 0,
        out: this.out,
        ld_out: qWidth,
      }),
    );
    this.add(
      'reshape_and_cache',
      `${rows} x ${kvWidth}, ${this.cacheDtype}`,
      { bytes: 2 * rows * kvWidth * (this.actBytes + dtypeBytes(this.cacheDtype)) },
      () => ({
        key: this.x,
        value: this.x,
        ld_kv: kvWidth,
        slot_mapping: slots,
        ...cache,
        num_tokens: rows,
        num_kv_heads: hf.numKeyValueHeads,
        head_dim: hf.headDim,
      }),
    );
  }

  private addSampling(rows: number): void {
    const { vocabSize } = this.hf;
    for (const [name, temperature, topP] of [
      ['greedy', 0, 1],
      ['top_p 0.9', 1, 0.9],
    ] as const) {
      const params = this.samplingRows(rows, temperature, topP);
      this.add('sample', `${rows} x ${vocabSize}, ${name}`, { bytes: rows * vocabSize * F32 }, () => ({
        logits: this.logits,
        rows,
        vocab_size: vocabSize,
        params,
        lists: this.zeros,
        bitmasks: 0,
        token_table: this.zeros,
        ld_table: 1,
        sampled: this.out,
        write_processed: 0,
      }));
    }
    this.add('logprobs', `${rows} x ${vocabSize}, top 5`, { bytes: rows * vocabSize * F32 }, () => ({
      logits: this.logits,
      rows,
      vocab_size: vocabSize,
      targets: this.zeros,
      named: 0,
      top_n: 5,
      ids: this.out,
      values: this.out + rows * 6 * F32,
      ranks: this.out + rows * 12 * F32,
      as_logits: 0,
    }));
  }

  private samplingRows(rows: number, temperature: number, topP: number): DevicePtr {
    const staging = this.device.staging(rows * SAMPLING_ROW_BYTES, 'bench');
    const view = new DataView(staging.host);
    for (let row = 0; row < rows; row++) {
      const at = row * SAMPLING_ROW_BYTES;
      view.setInt32(at + SAMPLING_ROW.slot.offset, -1, true);
      view.setFloat32(at + SAMPLING_ROW.temperature.offset, temperature, true);
      view.setFloat32(at + SAMPLING_ROW.topP.offset, topP, true);
      view.setFloat32(at + SAMPLING_ROW.repetitionPenalty.offset, 1, true);
      view.setInt32(at + SAMPLING_ROW.bitmask.offset, -1, true);
    }
    staging.upload();
    return staging.ptr;
  }

  private addCopies(): void {
    const bytes = 8192 * F32;
    this.add('copy_bytes', `${bytes} bytes`, { bytes: 2 * bytes }, () => ({ src: this.x, dst: this.out, bytes }));
    const pairs = this.ints([0, 1]);
    this.add('copy_blocks', `1 block of ${this.blockBytes} bytes`, { bytes: 2 * this.blockBytes }, () => ({
      kv_cache: this.kvCache,
      pairs,
      num_pairs: 1,
      block_bytes: this.blockBytes,
    }));
  }

  private ints(values: readonly number[]): DevicePtr {
    const staging = this.device.staging(values.length * 4, 'bench');
    new Int32Array(staging.host).set(values);
    staging.upload();
    return staging.ptr;
  }

  /** As peaked as a model's: a few tokens have most of the probability. */
  private randomLogits(count: number): DevicePtr {
    const staging = this.device.staging(count * F32, 'bench');
    const random = seededRandom(0);
    const logits = new Float32Array(staging.host);
    for (let i = 0; i < count; i++) logits[i] = randomGamma(random, 2, 2);
    staging.upload();
    return staging.ptr;
  }

  /** Memory whose every two bytes are a small bfloat16, and so every four a small float32. */
  private filled(floats: number): DevicePtr {
    const staging = this.device.staging(floats * F32, 'bench');
    const bits = new Uint16Array(staging.host);
    for (let i = 0; i < bits.length; i++) bits[i] = WEIGHT_BITS + (i % 61);
    staging.upload();
    return staging.ptr;
  }
}
