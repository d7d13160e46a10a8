import type { Device, DeviceEvent, DevicePtr } from '../device/device.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { AttentionMetadata, ForwardContext } from '../layers/forward-context.ts';
import { groupByAdapter, type LoRABatch, type LoRASpan, loraGroupWords, writeLoRAGroups } from '../lora/lora-batch.ts';
import type { RequestState } from './input-batch.ts';
import type { TokenTable } from './token-table.ts';

/** Blocks; below it tables do not shrink. */
const MIN_TABLE_WIDTH = 32;

/** One request's part of a step. */
export interface StepRow {
  state: RequestState;
  /** Added to its positions for the rotary embedding (CausalLM.positionOffset). */
  positionOffset: number;
  numComputedTokens: number;
  numScheduledTokens: number;
  /** All its tokens are computed after this step: it gets a new one. */
  samples: boolean;
  /** Its last tokens, which are guessed: it samples behind each of them and behind the token before. */
  draftTokenIds: readonly number[];
}

/** Token ids that go to the token table, from index `at` of row `slot` on. */
export interface NewTokens {
  slot: number;
  at: number;
  tokenIds: ArrayLike<number>;
}

export interface StepShape {
  blockSize: number;
  /** By KV cache group: the layers that share its block table. */
  layerNames: readonly (readonly string[])[];
  /** Whether the model reads token types. */
  usesTokenTypes: boolean;
  /** Whether rows may have adapters. */
  usesAdapters: boolean;
  /** The most that a step has of each, and a sequence's longest. */
  maxNumTokens: number;
  maxNumSeqs: number;
  maxLogitRows: number;
  maxModelLen: number;
}

/**
 * The flat varlen batch of one step on its way to the device: one staged i32 array in which each input has a region, and one for the block tables.
 * A step owns its StepInputs from `build` until `inUseUntil` is done.
 */
export class StepInputs {
  inUseUntil: DeviceEvent | null = null;
  /** i32 on the device, [numTokens] each. */
  tokenSlots: DevicePtr = 0;
  tokenPositions: DevicePtr = 0;
  /** i32 [rows of logits]: flat indices of what is sampled behind, row by row each one's last token and those before its drafts. */
  logitsIndices: DevicePtr = 0;
  /** null: the step has no row with an adapter. */
  lora: LoRABatch | null = null;
  private readonly words: StagedArray;
  private readonly blockTables: StagedArray;
  /** Token ids of the step's new requests and drafts, on their way to the token table. */
  private readonly newTokens: StagedArray;
  private readonly metadata = new Map<string, AttentionMetadata>();
  private readonly groupMetadata: AttentionMetadata[];

  constructor(
    private readonly device: Device,
    private readonly shape: StepShape,
  ) {
    this.words = new StagedArray(device, 'step inputs');
    this.blockTables = new StagedArray(device, 'step inputs');
    this.newTokens = new StagedArray(device, 'step inputs');
    this.groupMetadata = shape.layerNames.map((names) => {
      const metadata = { slotMapping: 0, blockTables: 0, ldBlockTable: 0 };
      for (const name of names) this.metadata.set(name, metadata);
      return metadata;
    });
    this.words.reserve(mostWords(shape));
    this.blockTables.reserve(shape.layerNames.length * shape.maxNumSeqs * tableWidth(shape, shape.maxModelLen));
    this.newTokens.reserve(Math.max(shape.maxNumTokens, shape.maxModelLen));
  }

  /** Enqueues tokens that come from the host into their places in the token table. */
  writeNewTokens(added: readonly NewTokens[], tokens: TokenTable): void {
    const { i32 } = this.newTokens;
    let total = 0;
    let first = 0;
    added.forEach(({ tokenIds }, i) => {
      // Prompts whose tokens are cached can be many times longer than a step.
      if (total + tokenIds.length > i32.length) {
        this.uploadNewTokens(added.slice(first, i), total, tokens);
        this.device.wait(this.device.record());
        [first, total] = [i, 0];
      }
      i32.set(tokenIds, total);
      total += tokenIds.length;
    });
    this.uploadNewTokens(added.slice(first), total, tokens);
  }

  private uploadNewTokens(added: readonly NewTokens[], total: number, tokens: TokenTable): void {
    this.newTokens.upload(total);
    let at = 0;
    for (const { slot, at: first, tokenIds } of added) {
      const destination = tokens.ptr + (slot * tokens.ld + first) * 4;
      this.device.ops.copy_bytes(this.newTokens.ptr + at * 4, destination, tokenIds.length * 4);
      at += tokenIds.length;
    }
  }

  /**
   * Lays the rows out and enqueues their upload.
   *
   * @param numSeqs sequences of the batch, at least those of `rows`: what goes beyond them are sequences of one token that read and write nothing
   */
  build(rows: readonly StepRow[], numSeqs: number): ForwardContext {
    const numGroups = this.groupMetadata.length;
    let numTokens = numSeqs - rows.length;
    let numDrafts = 0;
    for (const row of rows) {
      numTokens += row.numScheduledTokens;
      numDrafts += row.draftTokenIds.length;
    }

    const slotMappingAt = 3 * numTokens;
    const seqLensAt = slotMappingAt + numGroups * numTokens;
    const queryStartAt = seqLensAt + numSeqs;
    const logitsAt = queryStartAt + numSeqs + 1;
    const tokenTypesAt = logitsAt + numSeqs + numDrafts;
    const loraAt = tokenTypesAt + (this.shape.usesTokenTypes ? numTokens : 0);
    const loraGroups = this.shape.usesAdapters ? groupByAdapter(spansOf(rows)) : null;
    const total = loraAt + (loraGroups === null ? 0 : loraGroupWords(loraGroups));
    this.words.reserve(total);
    const words = this.words.i32;

    let token = 0;
    let numLogits = 0;
    let maxSeqLen = 0;
    for (let s = 0; s < rows.length; s++) {
      const row = rows[s]!;
      const end = row.numComputedTokens + row.numScheduledTokens;
      words[queryStartAt + s] = token;
      words[seqLensAt + s] = end;
      if (end > maxSeqLen) maxSeqLen = end;
      if (this.shape.usesTokenTypes) this.writeTokenTypes(row, tokenTypesAt + token);
      for (let g = 0; g < numGroups; g++) this.writeSlots(row, g, slotMappingAt + g * numTokens + token);
      for (let position = row.numComputedTokens; position < end; position++, token++) {
        words[token] = row.state.slot;
        words[numTokens + token] = position;
        words[2 * numTokens + token] = position + row.positionOffset;
      }
      if (!row.samples) continue;
      for (let ahead = row.draftTokenIds.length; ahead >= 0; ahead--) words[logitsAt + numLogits++] = token - 1 - ahead;
    }
    for (let s = rows.length; s < numSeqs; s++, token++) {
      words[queryStartAt + s] = token;
      words[seqLensAt + s] = 0;
      for (let g = 0; g < numGroups; g++) words[slotMappingAt + g * numTokens + token] = -1;
      for (const at of [token, numTokens + token, 2 * numTokens + token]) words[at] = 0;
      words[logitsAt + numLogits++] = token;
    }
    words[queryStartAt + numSeqs] = token;
    this.lora = loraGroups && writeLoRAGroups(loraGroups, words, loraAt, this.words.ptr);
    this.words.upload(total);
    this.buildBlockTables(rows, numSeqs);

    const base = this.words.ptr;
    this.tokenSlots = base;
    this.tokenPositions = base + numTokens * 4;
    this.logitsIndices = base + logitsAt * 4;
    for (let g = 0; g < numGroups; g++) {
      this.groupMetadata[g]!.slotMapping = base + (slotMappingAt + g * numTokens) * 4;
    }
    return {
      numTokens,
      numSeqs,
      positions: base + 2 * numTokens * 4,
      seqLens: base + seqLensAt * 4,
      queryStartLoc: base + queryStartAt * 4,
      maxSeqLen,
      tokenTypeIds: this.shape.usesTokenTypes ? base + tokenTypesAt * 4 : 0,
      attention: (layerName) => this.metadata.get(layerName)!,
    };
  }

  free(): void {
    this.words.free();
    this.blockTables.free();
    this.newTokens.free();
  }

  private writeSlots(row: StepRow, group: number, at: number): void {
    const { blockSize } = this.shape;
    const table = row.state.blockTables[group]!;
    const words = this.words.i32;
    const end = row.numComputedTokens + row.numScheduledTokens;
    for (let position = row.numComputedTokens, i = at; position < end; position++, i++) {
      words[i] = table.at(Math.floor(position / blockSize)) * blockSize + (position % blockSize);
    }
  }

  private writeTokenTypes({ state, numComputedTokens, numScheduledTokens }: StepRow, at: number): void {
    const firstTypeOne = state.pooling?.firstTypeOne ?? Number.POSITIVE_INFINITY;
    for (let i = 0; i < numScheduledTokens; i++) {
      this.words.i32[at + i] = numComputedTokens + i < firstTypeOne ? 0 : 1;
    }
  }

  /** Rows of one group are as far apart as its longest table in this step, and then a power of two, so that few steps differ in it. */
  private buildBlockTables(rows: readonly StepRow[], numSeqs: number): void {
    const lds = this.groupMetadata.map((_, g) => {
      const longest = rows.reduce((ld, row) => Math.max(ld, row.state.blockTables[g]!.length), MIN_TABLE_WIDTH);
      return powerOfTwo(longest);
    });
    const total = lds.reduce((sum, ld) => sum + ld * numSeqs, 0);
    this.blockTables.reserve(total);
    let at = 0;
    for (let g = 0; g < lds.length; g++) {
      const ld = lds[g]!;
      const start = at;
      for (const row of rows) {
        this.blockTables.i32.set(row.state.blockTables[g]!.view(), at);
        at += ld;
      }
      at = start + ld * numSeqs;
      this.groupMetadata[g]!.ldBlockTable = ld;
      this.groupMetadata[g]!.blockTables = this.blockTables.ptr + start * 4;
    }
    this.blockTables.upload(total);
  }
}

/** Words of a step's flat arrays, at the most: see `build`. */
function mostWords(shape: StepShape): number {
  const { layerNames, usesTokenTypes, usesAdapters, maxNumTokens, maxNumSeqs, maxLogitRows } = shape;
  const numTokens = Math.max(maxNumTokens, maxNumSeqs);
  const arrays = 3 + layerNames.length + (usesTokenTypes ? 1 : 0);
  const adapters = usesAdapters ? numTokens + 2 * maxNumSeqs + 1 : 0;
  return arrays * numTokens + 2 * maxNumSeqs + 1 + maxLogitRows + adapters;
}

/** Of the table of a sequence of that length. */
function tableWidth({ blockSize }: StepShape, seqLen: number): number {
  return powerOfTwo(Math.max(MIN_TABLE_WIDTH, Math.ceil(seqLen / blockSize)));
}

const powerOfTwo = (atLeast: number) => 2 ** Math.ceil(Math.log2(atLeast));

function spansOf(rows: readonly StepRow[]): LoRASpan[] {
  let firstToken = 0;
  return rows.map(({ state, numScheduledTokens: numTokens }) => {
    const span = { lora: state.lora, firstToken, numTokens };
    firstToken += numTokens;
    return span;
  });
}
