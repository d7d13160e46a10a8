import { type Device, type DevicePtr, OutOfMemoryError } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { CausalLM } from '../models/model.ts';
import { SamplingBatch } from '../sampling/sampling-batch.ts';
import { withoutLists, withoutLogprobs } from '../sampling/sampling-request.ts';
import type { DraftTokens } from '../scheduler/scheduler-output.ts';
import { ForwardPass } from './forward-pass.ts';
import type { RequestState } from './input-batch.ts';
import type { StepRow, StepShape } from './step-inputs.ts';
import type { TokenTable } from './token-table.ts';

export interface DraftModelOptions {
  /** Most drafts of a request. */
  numSpeculativeTokens: number;
  hiddenSize: number;
}

/** What one request gets. */
interface Proposal {
  state: RequestState;
  numDrafts: number;
}

const NO_DRAFTS: readonly number[] = [];

/**
 * Guesses with a smaller model of the same vocabulary how requests go on. Its keys and values lie in blocks of the same numbers as the target's, in
 * tensors of its own, so that prefix cache, preemption and block tables are those of the target.
 *
 * Drafts are sampled with the request's own parameters and with the very draw that the target will make at that position: where both models think
 * alike, both take the same token, at any temperature.
 */
export class DraftModelRunner {
  private readonly pass: ForwardPass;
  private readonly sampling: SamplingBatch;
  private readonly sampleHidden: DevicePtr;
  private readonly drafts: StagedArray;

  /** @param shape of the target's steps, with the draft's layers */
  constructor(
    private readonly device: Device,
    private readonly model: CausalLM,
    private readonly tokens: TokenTable,
    private readonly shape: StepShape,
    private readonly options: DraftModelOptions,
  ) {
    const { maxNumSeqs } = shape;
    const { vocabSize } = model;
    this.pass = new ForwardPass(device, model, tokens, shape);
    this.sampling = new SamplingBatch(device, { maxRows: maxNumSeqs, vocabSize, logprobsMode: 'raw_logprobs' });
    const bytesOfRow = options.hiddenSize * dtypeBytes(device.activationDtype);
    this.sampleHidden = device.alloc(maxNumSeqs * bytesOfRow, 'step inputs');
    this.drafts = new StagedArray(device, 'drafts');
    this.drafts.reserve(maxNumSeqs * options.numSpeculativeTokens);
  }

  /**
   * Computes what the target computed in the step of these rows, and guesses behind those that got tokens. Waits for the guesses.
   *
   * @param sampledTokenIds of each row
   */
  propose(rows: readonly StepRow[], sampledTokenIds: readonly (readonly number[])[]): DraftTokens[] {
    rows.forEach((row, i) => {
      this.learn(row, sampledTokenIds[i]!.length - 1);
    });
    const followed = rows.filter(isFollowed);
    if (followed.length === 0) return [];
    const proposals: Proposal[] = [];
    const first = followed.map((row): StepRow => {
      const { state } = row;
      const end = row.samples ? state.numTokens : row.numComputedTokens + row.numScheduledTokens;
      const numDrafts = row.samples ? this.numDraftsOf(state) : 0;
      if (numDrafts > 0) proposals.push({ state, numDrafts });
      // Behind the tokens that held its keys are those of drafts that did not.
      const start = Math.min(state.numDraftComputed, end - 1);
      state.numDraftComputed = end;
      return this.rowOf(state, start, end - start, numDrafts > 0);
    });
    this.enqueue(first, proposals, 0);
    for (let ahead = 1; ahead < this.options.numSpeculativeTokens; ahead++) {
      const going = proposals.filter(({ numDrafts }) => numDrafts > ahead);
      if (going.length === 0) break;
      const next = going.map(({ state }) => this.rowOf(state, state.numDraftComputed++, 1, true));
      this.enqueue(next, going, ahead);
    }
    return proposals.length === 0 ? [] : this.read(proposals);
  }

  close(): void {
    this.sampling.close();
    this.device.free(this.sampleHidden);
    this.drafts.free();
    this.pass.free();
  }

  /** Where all drafts hold there are two more the next time, else one less: few where each costs a pass for nothing. */
  private learn({ state, draftTokenIds }: StepRow, numAccepted: number): void {
    const { length } = draftTokenIds;
    if (length === 0) return;
    const { numSpeculativeTokens } = this.options;
    const draftLength = state.draftLength ?? numSpeculativeTokens;
    state.draftLength =
      numAccepted === length ? Math.min(numSpeculativeTokens, draftLength + 2) : Math.max(1, draftLength - 1);
  }

  /** Drafts and the token behind them stay within the longest length, and keys within the blocks: a core may have lowered that length. */
  private numDraftsOf({ numTokens, takesDrafts, draftLength, blockTables }: RequestState): number {
    if (!takesDrafts) return 0;
    const { maxModelLen, blockSize } = this.shape;
    const room = Math.min(maxModelLen - 1, blockTables[0]!.length * blockSize + 1) - numTokens;
    return Math.max(0, Math.min(draftLength ?? this.options.numSpeculativeTokens, room));
  }

  private rowOf(state: RequestState, numComputedTokens: number, numScheduledTokens: number, samples: boolean): StepRow {
    const positionOffset = this.model.positionOffset?.(state.numPromptTokens) ?? 0;
    return { state, positionOffset, numComputedTokens, numScheduledTokens, samples, draftTokenIds: NO_DRAFTS };
  }

  /** One pass; the rows that sample are those of `proposals`, whose draft number `ahead` it gives. */
  private enqueue(rows: readonly StepRow[], proposals: readonly Proposal[], ahead: number): void {
    const { device, model, sampling, sampleHidden, tokens } = this;
    const inputs = this.pass.begin();
    const context = inputs.build(rows, rows.length);
    const hidden = this.pass.enqueue(inputs, context);
    if (proposals.length > 0) {
      sampling.begin(proposals.length);
      proposals.forEach(({ state }, i) => {
        this.setRow(i, state, ahead);
      });
      sampling.upload();
      device.ops.gather_rows(hidden, inputs.logitsIndices, sampleHidden, proposals.length, this.options.hiddenSize);
      const logits = model.computeLogits(sampleHidden, proposals.length);
      sampling.sample(logits, tokens.ptr, tokens.ld);
      sampling.finish(logits);
    }
    this.pass.end(inputs);
  }

  /** Where there is no memory for what the request wants, a guess does without. */
  private setRow(i: number, { sampling, slot, numPromptTokens, numTokens }: RequestState, ahead: number): void {
    const place = { slot, numPromptTokens, numTokens: numTokens + ahead };
    try {
      this.sampling.setRow(i, withoutLogprobs(sampling), place);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      this.sampling.setRow(i, withoutLists(sampling), place);
    }
  }

  /** The drafts that the sampler has put behind the tokens of each request. */
  private read(proposals: readonly Proposal[]): DraftTokens[] {
    const { device, drafts, tokens } = this;
    const { numSpeculativeTokens } = this.options;
    proposals.forEach(({ state, numDrafts }, i) => {
      const source = tokens.ptr + (state.slot * tokens.ld + state.numTokens) * 4;
      device.ops.copy_bytes(source, drafts.ptr + i * numSpeculativeTokens * 4, numDrafts * 4);
    });
    drafts.download(proposals.length * numSpeculativeTokens);
    device.wait(device.record());
    return proposals.map(({ state: { key }, numDrafts }, i) => {
      const start = i * numSpeculativeTokens;
      return { key, tokenIds: Array.from(drafts.i32.subarray(start, start + numDrafts)) };
    });
  }
}

/** Others may find any prompt in the prefix cache, also one whose own request gets no drafts. */
function isFollowed({ state, numComputedTokens }: StepRow): boolean {
  return state.takesDrafts || numComputedTokens < state.numPromptTokens;
}
