import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { LogprobsTensors } from '../engine/messages.ts';
import type { KvCacheConfig } from '../kv-cache/kv-cache-spec.ts';
import type { CausalLM, Model } from '../models/model.ts';
import { PromptLogprobs } from '../sampling/prompt-logprobs.ts';
import { type LogprobsMode, SamplingBatch, type SamplingResult } from '../sampling/sampling-batch.ts';
import type { GrammarBitmask, ModelRunnerOutput, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { InputBatch, type RequestState } from './input-batch.ts';
import type { ForwardResult, OutputStage } from './output-stage.ts';
import type { PendingStep } from './pending-step.ts';
import { StepInputs, type StepRow } from './step-inputs.ts';

export interface ModelRunnerOptions {
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  maxModelLen: number;
  vocabSize: number;
}

/**
 * Turns a SchedulerOutput into one forward pass and what its output stage makes of it: SchedulerOutput → flat batch → hidden states → tokens, or
 * pooled vectors.
 *
 * The token table (i32 [maxNumSeqs, maxModelLen + 1] on the device) holds every token of every running request. The step's ids are gathered from it and
 * sampled tokens are written to it on the device, so the next step can be enqueued before this one's tokens are known to the host.
 */
export class ModelRunner {
  private readonly batch: InputBatch;
  private readonly inputs: readonly [StepInputs, StepInputs];
  private readonly stage: OutputStage;
  private readonly tokenTable: DevicePtr;
  private readonly ldTokenTable: number;
  private readonly inputIds: DevicePtr;
  private step = 0;

  /** @param createStage what is to become of hidden states, given where the tokens are */
  constructor(
    private readonly device: Device,
    private readonly model: Model,
    kvCache: KvCacheConfig,
    options: ModelRunnerOptions,
    createStage: (tokens: TokenTable) => OutputStage,
  ) {
    const layerNames = kvCache.groups.map((group) => group.layerNames);
    // Without a group there is no slot to compute.
    const blockSize = kvCache.groups[0]?.spec.blockSize ?? 1;
    const shape = { blockSize, layerNames, usesTokenTypes: model.usesTokenTypes ?? false };
    this.batch = new InputBatch(options.maxNumSeqs, layerNames.length, model, options.vocabSize);
    this.inputs = [new StepInputs(device, shape), new StepInputs(device, shape)];
    this.ldTokenTable = options.maxModelLen + 1;
    this.tokenTable = device.alloc(options.maxNumSeqs * this.ldTokenTable * 4, 'token table');
    this.inputIds = device.alloc(options.maxNumBatchedTokens * 4, 'step inputs');
    this.stage = createStage({ ptr: this.tokenTable, ld: this.ldTokenTable });
  }

  /** Enqueues a step. At most two steps may be in flight; the inputs of the one before the last are waited for. */
  execute(scheduled: SchedulerOutput): PendingStep {
    const inputs = this.inputs[this.step++ % 2]!;
    if (inputs.inUseUntil !== null) this.device.wait(inputs.inUseUntil);

    const rows = this.updateStates(scheduled, inputs);
    const context = inputs.build(rows);
    this.device.ops.gather_token_ids(
      this.tokenTable,
      this.ldTokenTable,
      inputs.tokenSlots,
      inputs.tokenPositions,
      this.inputIds,
      context.numTokens,
    );
    const hidden = this.model.forward(this.inputIds, context);
    const wait = this.stage.enqueue({ rows, scheduled, inputs, hidden });
    for (const row of rows) if (row.samples) row.state.numTokens++;
    inputs.inUseUntil = this.device.record();
    return { wait };
  }

  close(): void {
    this.device.wait(this.device.record());
    this.stage.close();
    for (const inputs of this.inputs) inputs.free();
    for (const ptr of [this.tokenTable, this.inputIds]) this.device.free(ptr);
  }

  /** Takes over what changed and gives the step's rows: requests held already, then the new ones. */
  private updateStates(scheduled: SchedulerOutput, inputs: StepInputs): StepRow[] {
    for (const key of scheduled.releasedKeys) this.batch.release(key);
    const rows: StepRow[] = [];
    for (const data of scheduled.cachedRequests) {
      const state = this.batch.get(data.key);
      appendBlocks(state, data.newBlockIds);
      rows.push(toRow(state, data));
    }
    const added: { slot: number; tokenIds: Int32Array }[] = [];
    for (const data of scheduled.newRequests) {
      const state = this.batch.add(data);
      appendBlocks(state, data.blockIds);
      added.push({ slot: state.slot, tokenIds: data.tokenIds });
      rows.push(toRow(state, data));
    }
    inputs.writeNewTokens(added, this.tokenTable, this.ldTokenTable);
    return rows;
  }
}

/** i32 [maxNumSeqs, ld]: see ModelRunner. */
export interface TokenTable {
  ptr: DevicePtr;
  ld: number;
}

export interface SamplingStageOptions {
  maxNumSeqs: number;
  /** Most rows of logits at once. */
  maxLogitRows: number;
  hiddenSize: number;
  logprobsMode: LogprobsMode;
}

/** Hidden states to logits to tokens, with the log probabilities that were asked for. */
export class SamplingStage implements OutputStage {
  private readonly sampling: SamplingBatch;
  private readonly sampleHidden: DevicePtr;

  constructor(
    private readonly device: Device,
    private readonly model: CausalLM,
    private readonly tokens: TokenTable,
    private readonly options: SamplingStageOptions,
  ) {
    this.sampling = new SamplingBatch(device, {
      maxRows: options.maxNumSeqs,
      vocabSize: model.vocabSize,
      logprobsMode: options.logprobsMode,
    });
    this.sampleHidden = device.alloc(options.maxNumSeqs * this.hiddenRowBytes, 'step inputs');
  }

  enqueue({ rows, scheduled, inputs, hidden }: ForwardResult): () => ModelRunnerOutput {
    const promptLogprobs = this.enqueuePromptLogprobs(rows, hidden);
    const sampled = this.enqueueSampling(rows, hidden, inputs.logitsIndices, scheduled.grammarBitmask);
    return () => this.collect(rows, sampled, promptLogprobs);
  }

  close(): void {
    this.sampling.close();
    this.device.free(this.sampleHidden);
  }

  private get hiddenRowBytes(): number {
    return this.options.hiddenSize * dtypeBytes(this.device.activationDtype);
  }

  /** One entry a row; null where no prompt position of this step has a log probability to report. */
  private enqueuePromptLogprobs(rows: readonly StepRow[], hidden: DevicePtr): (PromptLogprobs | null)[] {
    let firstToken = 0;
    return rows.map((row) => {
      const start = firstToken;
      firstToken += row.numScheduledTokens;
      return this.enqueuePromptLogprobsOf(row, hidden + start * this.hiddenRowBytes);
    });
  }

  private enqueuePromptLogprobsOf(row: StepRow, hidden: DevicePtr): PromptLogprobs | null {
    const { promptTokenIds, promptTopLogprobs } = row.state;
    if (promptTokenIds === null) return null;
    // The hidden state at position p predicts the token at p + 1.
    const first = row.numComputedTokens + 1;
    const targets = promptTokenIds.subarray(first, first + row.numScheduledTokens);
    if (targets.length === 0) return null;
    const logprobs = new PromptLogprobs(this.device, {
      vocabSize: this.model.vocabSize,
      numPositions: targets.length,
      topN: promptTopLogprobs,
      logprobsMode: this.options.logprobsMode,
    });
    for (let at = 0; at < targets.length; at += this.options.maxLogitRows) {
      const chunk = targets.subarray(at, at + this.options.maxLogitRows);
      const logits = this.model.computeLogits(hidden + at * this.hiddenRowBytes, chunk.length);
      logprobs.add(logits, chunk);
    }
    logprobs.seal();
    return logprobs;
  }

  private enqueueSampling(
    rows: readonly StepRow[],
    hidden: DevicePtr,
    logitsIndices: DevicePtr,
    grammarBitmask: GrammarBitmask | null,
  ): SamplingResult {
    const numSampled = rows.reduce((count, row) => count + (row.samples ? 1 : 0), 0);
    this.sampling.begin(numSampled);
    const masks = masksByKey(grammarBitmask);
    let i = 0;
    for (const { state, samples } of rows) {
      if (!samples) continue;
      const bitmask = masks?.get(state.key);
      this.sampling.setRow(i++, state.sampling, bitmask === undefined ? state : { ...state, bitmask });
    }
    if (numSampled === 0) return this.sampling.run(0, this.tokens.ptr, this.tokens.ld);
    this.device.ops.gather_rows(hidden, logitsIndices, this.sampleHidden, numSampled, this.options.hiddenSize);
    const logits = this.model.computeLogits(this.sampleHidden, numSampled);
    return this.sampling.run(logits, this.tokens.ptr, this.tokens.ld);
  }

  private collect(
    rows: readonly StepRow[],
    sampled: SamplingResult,
    promptLogprobs: readonly (PromptLogprobs | null)[],
  ): ModelRunnerOutput {
    this.device.wait(sampled.event);
    const sampledTokenIds: number[][] = [];
    const logprobs: (LogprobsTensors | null)[] = [];
    let i = 0;
    for (const row of rows) {
      sampledTokenIds.push(row.samples ? [sampled.sampled(i)] : []);
      logprobs.push(row.samples ? sampled.logprobs(i) : null);
      if (row.samples) i++;
    }
    return {
      keys: rows.map((row) => row.state.key),
      sampledTokenIds,
      logprobs,
      promptLogprobs: promptLogprobs.map((piece) => piece?.take() ?? null),
    };
  }
}

function masksByKey(bitmask: GrammarBitmask | null): Map<number, Int32Array> | null {
  if (bitmask === null) return null;
  const { keys, wordsPerRow, words } = bitmask;
  return new Map(keys.map((key, row) => [key, words.subarray(row * wordsPerRow, (row + 1) * wordsPerRow)]));
}

function appendBlocks(state: RequestState, blockIds: readonly (readonly number[])[]): void {
  for (let group = 0; group < blockIds.length; group++) state.blockTables[group]!.append(blockIds[group]!);
}

function toRow(state: StepRow['state'], data: { numComputedTokens: number; numScheduledTokens: number }): StepRow {
  const { numComputedTokens, numScheduledTokens } = data;
  const samples = numComputedTokens + numScheduledTokens >= state.numTokens;
  return { state, numComputedTokens, numScheduledTokens, samples };
}
