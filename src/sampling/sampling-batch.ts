import type { Device, DeviceEvent, DevicePtr } from '../device/device.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { LogprobsTensors } from './logprobs-tensors.ts';
import { CONSTANT_LISTS, ROW_WORDS, rowWord, type SamplingRequest } from './sampling-request.ts';

/** Best tokens that every row of a step has room for: as many as `--max-logprobs` allows by default. */
const RESERVED_LOGPROBS = 20;
/** Words of lists (biases, allowed ids, bad words) that every row has room for, on the average. */
const RESERVED_LIST_WORDS = 64;

/** Which numbers are reported: of the model's own logits, or after every change that sampling made to them (`--logprobs-mode`). */
export type LogprobsMode = 'raw_logprobs' | 'processed_logprobs' | 'raw_logits' | 'processed_logits';

export interface SamplingBatchOptions {
  /** Most rows of one step. */
  maxRows: number;
  vocabSize: number;
  logprobsMode: LogprobsMode;
}

/** What changes from step to step for a row. */
export interface SamplingRowState {
  /** Row of the token table, or -1: no history, the token is written nowhere but to the result. */
  slot: number;
  numPromptTokens: number;
  /** Tokens in the table, prompt and output; the sampled token goes to this index. */
  numTokens: number;
  /** Grammar mask, ceil(vocabSize / 32) words, bit i % 32 of word i / 32 set where token i is allowed. */
  bitmask?: Int32Array | null;
}

/** Tokens of one step. Readable once `event` is done, until the second `begin` after the one that started its step. */
export interface SamplingResult {
  readonly event: DeviceEvent;
  readonly rows: number;
  /** The token chosen for row i. */
  sampled(i: number): number;
  /** One position: the sampled token and the best or named ones that row i's request asked for; null where it asked for none. */
  logprobs(i: number): LogprobsTensors | null;
}

/**
 * Consecutive rows with log probabilities: one call of the op, with the largest number of best tokens among them. A row that names
 * its tokens has a call of its own.
 */
interface LogprobsRun {
  firstRow: number;
  rows: number;
  topN: number;
  /** First entry of ids and values. */
  offset: number;
  /** First word of their named tokens in the lists; null: the best ones. */
  named: number | null;
}

const WORD = {
  slot: rowWord('slot'),
  numPromptTokens: rowWord('numPromptTokens'),
  numTokens: rowWord('numTokens'),
  maskedIds: rowWord('maskedIds'),
  bitmask: rowWord('bitmask'),
  constantLists: CONSTANT_LISTS.map(rowWord),
};

/** The first token is as good as any: no bias, no history. */
const NOBODYS_ROW = new Int32Array(ROW_WORDS);
NOBODYS_ROW[WORD.slot] = -1;
NOBODYS_ROW[WORD.bitmask] = -1;

/** Everything that a step in flight owns; there are two, so that a step can be built while the one before it runs. */
class StepBuffers {
  readonly params: StagedArray;
  readonly lists: StagedArray;
  readonly bitmasks: StagedArray;
  readonly sampled: StagedArray;
  readonly ids: StagedArray;
  readonly values: StagedArray;
  readonly ranks: StagedArray;
  /** Best tokens wanted by row, -1: none. */
  readonly topLogprobs: Int32Array;
  /** Offset in the lists of the tokens that a row names, -1: it names none. */
  readonly namedIds: Int32Array;
  readonly runs: LogprobsRun[] = [];
  listWords = 0;
  bitmaskWords = 0;
  /** Step that the contents belong to. */
  step = -1;
  /** Set from `run` until the buffers are used again. */
  event: DeviceEvent | null = null;

  /** Takes all that a step needs, but for what only few requests want: more best tokens and longer lists than the above. */
  constructor(device: Device, maxRows: number, maskWords: number) {
    const array = () => new StagedArray(device, 'sampling');
    this.params = array();
    this.lists = array();
    this.bitmasks = array();
    this.sampled = array();
    this.ids = array();
    this.values = array();
    this.ranks = array();
    this.topLogprobs = new Int32Array(maxRows);
    this.namedIds = new Int32Array(maxRows);
    this.params.reserve(maxRows * ROW_WORDS);
    this.sampled.reserve(maxRows);
    this.ranks.reserve(maxRows);
    this.ids.reserve(maxRows * (1 + RESERVED_LOGPROBS));
    this.values.reserve(maxRows * (1 + RESERVED_LOGPROBS));
    // The op wants an address even when no row has a list.
    this.lists.reserve(maxRows * RESERVED_LIST_WORDS);
    this.bitmasks.reserve(maxRows * maskWords);
  }

  reset(step: number): void {
    this.step = step;
    this.event = null;
    this.listWords = 0;
    this.bitmaskWords = 0;
    this.runs.length = 0;
  }

  /** Appends words to the lists pool; returns their offset. */
  pushList(words: Int32Array): number {
    const offset = this.listWords;
    this.lists.reserve(offset + words.length, offset);
    this.lists.i32.set(words, offset);
    this.listWords = offset + words.length;
    return offset;
  }

  pushBitmask(words: Int32Array): number {
    const offset = this.bitmaskWords;
    this.bitmasks.reserve(offset + words.length, offset);
    this.bitmasks.i32.set(words, offset);
    this.bitmaskWords = offset + words.length;
    return offset;
  }

  free(): void {
    for (const array of [this.params, this.lists, this.bitmasks, this.sampled, this.ids, this.values, this.ranks])
      array.free();
  }
}

/**
 * Builds the sampler's inputs of one step and enqueues it: `begin`, `setRow` for every row, `upload`, `sample`, `finish`. Two steps may be in flight:
 * a step's results stay readable while the next one is built and enqueued.
 */
export class SamplingBatch {
  private readonly buffers: readonly [StepBuffers, StepBuffers];
  private readonly maskWords: number;
  private step = 0;
  private current: StepBuffers;
  private rows = 0;
  private numSampled = 0;

  constructor(
    private readonly device: Device,
    private readonly options: SamplingBatchOptions,
  ) {
    this.maskWords = Math.ceil(options.vocabSize / 32);
    const buffers = () => new StepBuffers(device, options.maxRows, this.maskWords);
    this.buffers = [buffers(), buffers()];
    this.current = this.buffers[0];
  }

  /**
   * Starts a step of `rows` rows. Waits for the step before the last one, whose buffers it takes.
   *
   * @param numSampled rows of logits, at least `rows`: what is sampled of those beyond is written nowhere
   */
  begin(rows: number, numSampled = rows): void {
    if (numSampled > this.options.maxRows) {
      throw new RangeError(`${numSampled} rows to sample, the batch was made for at most ${this.options.maxRows}`);
    }
    this.numSampled = numSampled;
    this.step++;
    this.rows = rows;
    this.current = this.buffers[this.step % 2]!;
    if (this.current.event !== null) this.device.wait(this.current.event);
    this.current.reset(this.step);
  }

  /** Fills row i (0 <= i < rows of `begin`). Throws an OutOfMemoryError where there is no room for its lists; it can be filled once more then. */
  setRow(i: number, request: SamplingRequest, state: SamplingRowState): void {
    const { current } = this;
    const base = i * ROW_WORDS;
    const words = current.params.i32;
    words.set(request.template, base);
    words[base + WORD.slot] = state.slot;
    words[base + WORD.numPromptTokens] = state.numPromptTokens;
    words[base + WORD.numTokens] = state.numTokens;
    if (request.lists.length > 0) {
      const offset = current.pushList(request.lists);
      for (const word of WORD.constantLists) words[base + word]! += offset;
    }
    if (state.numTokens - state.numPromptTokens < request.minTokens) {
      words[base + WORD.maskedIds] = current.pushList(request.stopIds);
      words[base + WORD.maskedIds + 1] = request.stopIds.length;
    }
    current.topLogprobs[i] = request.topLogprobs;
    current.namedIds[i] = request.namedIds === null ? -1 : current.pushList(request.namedIds);
    if (state.bitmask) {
      if (state.bitmask.length < this.maskWords) {
        throw new RangeError(`a grammar mask of ${state.bitmask.length} words, the vocabulary needs ${this.maskWords}`);
      }
      words[base + WORD.bitmask] = current.pushBitmask(state.bitmask.subarray(0, this.maskWords));
    }
  }

  /** Reports no log probabilities of the rows that there may be no room for; gives those rows. */
  dropLargeLogprobs(): number[] {
    const { topLogprobs } = this.current;
    const large: number[] = [];
    for (let row = 0; row < this.rows; row++) if (topLogprobs[row]! > RESERVED_LOGPROBS) large.push(row);
    for (const row of large) topLogprobs[row] = -1;
    return large;
  }

  /** Enqueues the upload of what has been set. Throws an OutOfMemoryError, before anything is enqueued, where there is no room for log probabilities. */
  upload(): void {
    const { current, rows, numSampled } = this;
    for (let i = rows; i < numSampled; i++) current.params.i32.set(NOBODYS_ROW, i * ROW_WORDS);
    if (this.wantsLogprobs) this.planLogprobs();
    current.params.upload(numSampled * ROW_WORDS);
    current.lists.upload(current.listWords);
    current.bitmasks.upload(current.bitmaskWords);
  }

  /**
   * Enqueues sampling of logits float32 [numSampled, vocabSize], one op and nothing else. Sampled tokens also go to the token table (i32, rows
   * `ldTokenTable` apart). With a processed_* mode the logits are overwritten.
   */
  sample(logits: DevicePtr, tokenTable: DevicePtr, ldTokenTable: number): void {
    const { current, numSampled } = this;
    if (numSampled === 0) return;
    this.device.ops.sample(
      logits,
      numSampled,
      this.options.vocabSize,
      current.params.ptr,
      current.lists.ptr,
      current.bitmaskWords > 0 ? current.bitmasks.ptr : 0,
      tokenTable,
      ldTokenTable,
      current.sampled.ptr,
      this.reportsProcessed ? 1 : 0,
    );
  }

  /**
   * Enqueues what follows `sample`: log probabilities of the sampled token and the best ones where a row asked for them, and the way to the host.
   *
   * @param logits those that were sampled
   * @param rawLogits the model's own, which raw_* modes report, where they were changed before sampling
   */
  finish(logits: DevicePtr, rawLogits = logits): SamplingResult {
    const { current, rows } = this;
    if (rows > 0) {
      if (this.wantsLogprobs) this.enqueueLogprobs(this.reportsProcessed ? logits : rawLogits);
      current.sampled.download(rows);
    }
    current.event = this.device.record();
    return new StepResult(current, rows, current.event);
  }

  private get reportsProcessed(): boolean {
    return this.wantsLogprobs && this.options.logprobsMode.startsWith('processed_');
  }

  /** Whether a row that has been set asks for log probabilities. */
  get wantsLogprobs(): boolean {
    for (let row = 0; row < this.rows; row++) if (this.current.topLogprobs[row]! >= 0) return true;
    return false;
  }

  /** Waits for what is in flight and gives the memory back. */
  close(): void {
    for (const buffers of this.buffers) {
      if (buffers.event !== null) this.device.wait(buffers.event);
      buffers.free();
    }
  }

  /** Groups the rows that want log probabilities. */
  private planLogprobs(): void {
    const { runs, topLogprobs, namedIds } = this.current;
    runs.length = 0;
    let entries = 0;
    for (let row = 0; row < this.rows; ) {
      const firstRow = row++;
      let topN = topLogprobs[firstRow]!;
      if (topN < 0) continue;
      const named = namedIds[firstRow]! < 0 ? null : namedIds[firstRow]!;
      const joins = (next: number) => named === null && topLogprobs[next]! >= 0 && namedIds[next]! < 0;
      for (; row < this.rows && joins(row); row++) topN = Math.max(topN, topLogprobs[row]!);
      runs.push({ firstRow, rows: row - firstRow, topN, offset: entries, named });
      entries += (row - firstRow) * (topN + 1);
    }
    this.current.ids.reserve(entries);
    this.current.values.reserve(entries);
  }

  private enqueueLogprobs(logits: DevicePtr): void {
    const { current } = this;
    const { vocabSize, logprobsMode } = this.options;
    let entries = 0;
    for (const run of current.runs) {
      this.device.ops.logprobs(
        logits + run.firstRow * vocabSize * 4,
        run.rows,
        vocabSize,
        current.sampled.ptr + run.firstRow * 4,
        run.named === null ? 0 : current.lists.ptr + run.named * 4,
        run.topN,
        current.ids.ptr + run.offset * 4,
        current.values.ptr + run.offset * 4,
        current.ranks.ptr + run.firstRow * 4,
        logprobsMode.endsWith('_logits') ? 1 : 0,
      );
      entries = run.offset + run.rows * (run.topN + 1);
    }
    current.ids.download(entries);
    current.values.download(entries);
    current.ranks.download(this.rows);
  }
}

class StepResult implements SamplingResult {
  private readonly step: number;

  constructor(
    private readonly buffers: StepBuffers,
    readonly rows: number,
    readonly event: DeviceEvent,
  ) {
    this.step = buffers.step;
  }

  sampled(i: number): number {
    this.checkRow(i);
    return this.buffers.sampled.i32[i]!;
  }

  logprobs(i: number): LogprobsTensors | null {
    this.checkRow(i);
    const topN = this.buffers.topLogprobs[i]!;
    if (topN < 0) return null;
    const run = this.buffers.runs.find((each) => i >= each.firstRow && i < each.firstRow + each.rows)!;
    const start = run.offset + (i - run.firstRow) * (run.topN + 1);
    return {
      numPositions: 1,
      width: topN + 1,
      tokenIds: this.buffers.ids.i32.slice(start, start + topN + 1),
      logprobs: this.buffers.values.f32.slice(start, start + topN + 1),
      ranks: this.buffers.ranks.i32.slice(i, i + 1),
    };
  }

  private checkRow(i: number): void {
    if (this.buffers.step !== this.step)
      throw new Error('the result of a sampling step was read after its buffers were reused');
    if (!(i >= 0 && i < this.rows)) throw new RangeError(`row ${i} of a sampling step with ${this.rows} rows`);
  }
}
