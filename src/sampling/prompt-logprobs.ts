import type { Device, DeviceEvent, DevicePtr } from '../device/device.ts';
import { freeOnFailure } from '../device/release.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { LogprobsTensors } from './logprobs-tensors.ts';
import type { LogprobsMode } from './sampling-batch.ts';

export interface PromptLogprobsOptions {
  vocabSize: number;
  /** Prompt positions that this piece covers. */
  numPositions: number;
  /** Best tokens beside the prompt's own (`topLogprobs` of the parameter). */
  topN: number;
  logprobsMode: LogprobsMode;
}

/**
 * Log probabilities of one scheduled piece of a prompt. Its logits [numPositions, vocabSize] may be too big to exist at once, so they are
 * fed in chunks of rows: `add` until all positions are there, `seal`, then `take` once the event is done.
 */
export class PromptLogprobs {
  private readonly targets: StagedArray;
  private readonly ids: StagedArray;
  private readonly values: StagedArray;
  private readonly ranks: StagedArray;
  private readonly width: number;
  private positions = 0;

  /** Throws an OutOfMemoryError, and keeps nothing then. */
  constructor(
    private readonly device: Device,
    private readonly options: PromptLogprobsOptions,
  ) {
    const { numPositions, topN } = options;
    this.width = topN + 1;
    const array = () => new StagedArray(device, 'prompt logprobs');
    [this.targets, this.ids, this.values, this.ranks] = [array(), array(), array(), array()];
    freeOnFailure(
      () => this.free(),
      () => {
        for (const each of [this.targets, this.ranks]) each.reserve(numPositions);
        for (const each of [this.ids, this.values]) each.reserve(numPositions * this.width);
      },
    );
  }

  /** Positions that are still to be added. */
  get remaining(): number {
    return this.options.numPositions - this.positions;
  }

  /** Enqueues the next `targetIds.length` positions: row i of logits (float32 [rows, vocabSize]) predicts targetIds[i], the prompt's next token. */
  add(logits: DevicePtr, targetIds: Int32Array): void {
    const { positions } = this;
    const rows = targetIds.length;
    if (rows > this.remaining) throw new RangeError(`${rows} prompt positions where ${this.remaining} were left`);
    if (rows === 0) return;
    this.targets.i32.set(targetIds, positions);
    this.positions += rows;
    this.targets.upload(this.positions);
    this.device.ops.logprobs(
      logits,
      rows,
      this.options.vocabSize,
      this.targets.ptr + positions * 4,
      0,
      this.options.topN,
      this.ids.ptr + positions * this.width * 4,
      this.values.ptr + positions * this.width * 4,
      this.ranks.ptr + positions * 4,
      this.options.logprobsMode.endsWith('_logits') ? 1 : 0,
    );
  }

  /** Enqueues the way back to the host. */
  seal(): DeviceEvent {
    this.ids.download(this.positions * this.width);
    this.values.download(this.positions * this.width);
    this.ranks.download(this.positions);
    return this.device.record();
  }

  /** The result, when `seal`'s event is done; frees the buffers. */
  take(): LogprobsTensors {
    const entries = this.positions * this.width;
    const result = {
      numPositions: this.positions,
      width: this.width,
      tokenIds: this.ids.i32.slice(0, entries),
      logprobs: this.values.f32.slice(0, entries),
      ranks: this.ranks.i32.slice(0, this.positions),
    };
    this.free();
    return result;
  }

  /** For a piece whose result nobody wants any more; only when no enqueued work uses it. */
  free(): void {
    for (const array of [this.targets, this.ids, this.values, this.ranks]) array.free();
  }
}
