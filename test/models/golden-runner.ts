import type { Device, DevicePtr, StagingBuffer } from '../../src/device/device.ts';
import { dtypeBytes } from '../../src/device/dtype.ts';
import type { ForwardContext } from '../../src/layers/forward-context.ts';
import type { CausalLM, Model } from '../../src/models/model.ts';
import { floats } from './reference-values.ts';

export interface GoldenRunnerOptions {
  hiddenSize: number;
  blockSize: number;
  /** Most tokens of a sequence. */
  maxModelLen: number;
  maxNumSeqs: number;
  maxNumTokens: number;
  maxLogitRows: number;
}

/** A sequence in the runner's KV cache. */
export interface GoldenSequence {
  /** Row of block ids. */
  index: number;
  numComputed: number;
  positionOffset: number;
}

/** New tokens of one sequence in a step. */
export interface StepPart {
  sequence: GoldenSequence;
  ids: readonly number[];
  /** Index among `ids` of the first token of a pair's second text. */
  firstTypeOne?: number;
}

/**
 * The least that runs a model: a KV cache whose blocks are scattered, flat batches, logits of every token. Only for devices whose
 * memory the host can read.
 */
export class GoldenRunner<M extends Model = CausalLM> {
  private readonly ids: StagingBuffer;
  private readonly positions: StagingBuffer;
  private readonly tokenTypes: StagingBuffer;
  private readonly slots: StagingBuffer;
  private readonly seqLens: StagingBuffer;
  private readonly queryStartLoc: StagingBuffer;
  private readonly blockTables: StagingBuffer;
  private readonly blocksPerSequence: number;
  private numSequences = 0;

  constructor(
    private readonly device: Device,
    readonly model: M,
    private readonly options: GoldenRunnerOptions,
  ) {
    const { maxNumTokens, maxNumSeqs, maxModelLen, blockSize } = options;
    this.blocksPerSequence = Math.ceil(maxModelLen / blockSize);
    const i32 = (count: number) => device.staging(count * 4, 'test inputs');
    this.ids = i32(maxNumTokens);
    this.positions = i32(maxNumTokens);
    this.tokenTypes = i32(maxNumTokens);
    this.slots = i32(maxNumTokens);
    this.seqLens = i32(maxNumSeqs);
    this.queryStartLoc = i32(maxNumSeqs + 1);
    this.blockTables = i32(maxNumSeqs * this.blocksPerSequence);
    this.bindKvCache();
  }

  /** A sequence with blocks of its own, as long as there are some left. */
  addSequence(numPromptTokens: number): GoldenSequence {
    if (this.numSequences === this.options.maxNumSeqs) throw new Error('no blocks left for another sequence');
    const positionOffset = this.model.positionOffset?.(numPromptTokens) ?? 0;
    return { index: this.numSequences++, numComputed: 0, positionOffset };
  }

  /** Takes back all sequences' blocks. */
  reset(): void {
    this.numSequences = 0;
  }

  /** Runs one step and gives the logits after each new token, part after part. */
  step(this: GoldenRunner<CausalLM>, parts: readonly StepPart[]): Float32Array[] {
    const { hidden, numTokens } = this.forward(parts);
    return readLogits(this.model, hidden, numTokens, { device: this.device, ...this.options });
  }

  /** Runs one step and gives the address of the hidden states, act [numTokens, hiddenSize]. */
  forward(parts: readonly StepPart[]): { hidden: DevicePtr; numTokens: number } {
    const context = this.buildContext(parts);
    return { hidden: this.model.forward(this.ids.ptr, context), numTokens: context.numTokens };
  }

  private bindKvCache(): void {
    const numBlocks = this.options.maxNumSeqs * this.blocksPerSequence;
    const caches = new Map<string, DevicePtr>();
    for (const [name, spec] of this.model.kvCacheSpecs()) {
      caches.set(name, this.device.alloc(numBlocks * spec.pageBytes, 'test KV cache'));
    }
    this.model.bindKvCache(caches);
  }

  /** Neighbouring blocks of a sequence lie far apart and in falling order. */
  private blockId(sequence: number, block: number): number {
    return (this.blocksPerSequence - 1 - block) * this.options.maxNumSeqs + sequence;
  }

  private buildContext(parts: readonly StepPart[]): ForwardContext {
    const { blockSize } = this.options;
    const ids = new Int32Array(this.ids.host);
    const positions = new Int32Array(this.positions.host);
    const slots = new Int32Array(this.slots.host);
    const seqLens = new Int32Array(this.seqLens.host);
    const queryStartLoc = new Int32Array(this.queryStartLoc.host);
    const blockTables = new Int32Array(this.blockTables.host);
    const tokenTypes = new Int32Array(this.tokenTypes.host);
    let numTokens = 0;
    parts.forEach(({ sequence, ids: newIds, firstTypeOne = newIds.length }, row) => {
      newIds.forEach((id, i) => {
        const position = sequence.numComputed++;
        ids[numTokens] = id;
        positions[numTokens] = position + sequence.positionOffset;
        const block = this.blockId(sequence.index, Math.floor(position / blockSize));
        tokenTypes[numTokens] = i < firstTypeOne ? 0 : 1;
        slots[numTokens++] = block * blockSize + (position % blockSize);
      });
      for (let block = 0; block < this.blocksPerSequence; block++) {
        blockTables[row * this.blocksPerSequence + block] = this.blockId(sequence.index, block);
      }
      seqLens[row] = sequence.numComputed;
      queryStartLoc[row + 1] = numTokens;
    });
    const perToken = [this.ids, this.positions, this.tokenTypes, this.slots];
    for (const staged of [...perToken, this.seqLens, this.queryStartLoc, this.blockTables]) staged.upload();
    const metadata = {
      slotMapping: this.slots.ptr,
      blockTables: this.blockTables.ptr,
      ldBlockTable: this.blocksPerSequence,
    };
    return {
      numTokens,
      numSeqs: parts.length,
      positions: this.positions.ptr,
      seqLens: this.seqLens.ptr,
      queryStartLoc: this.queryStartLoc.ptr,
      maxSeqLen: Math.max(...parts.map(({ sequence }) => sequence.numComputed)),
      tokenTypeIds: this.tokenTypes.ptr,
      attention: () => metadata,
    };
  }
}

function readLogits(
  model: CausalLM,
  hidden: DevicePtr,
  numTokens: number,
  { device, hiddenSize, maxLogitRows }: { device: Device; hiddenSize: number; maxLogitRows: number },
): Float32Array[] {
  const rowBytes = hiddenSize * dtypeBytes(device.activationDtype);
  const logits: Float32Array[] = [];
  for (let first = 0; first < numTokens; first += maxLogitRows) {
    const rows = Math.min(maxLogitRows, numTokens - first);
    const address = model.computeLogits(hidden + first * rowBytes, rows);
    device.wait(device.record());
    for (let row = 0; row < rows; row++)
      logits.push(floats(address + row * model.vocabSize * 4, model.vocabSize).slice());
  }
  return logits;
}
