import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { CausalLM } from '../models/model.ts';
import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import { PromptLogprobs } from '../sampling/prompt-logprobs.ts';
import { type LogprobsMode, SamplingBatch, type SamplingResult } from '../sampling/sampling-batch.ts';
import { forceToken } from '../sampling/sampling-request.ts';
import type { GrammarBitmask, ModelRunnerOutput, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { type EditedRow, LogitsEditor } from './logits-editor.ts';
import type { ForwardResult, OutputStage, TokenTable } from './output-stage.ts';
import type { StepRow } from './step-inputs.ts';

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
  private readonly logitsEditor: LogitsEditor;
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
    this.logitsEditor = new LogitsEditor(device, model.vocabSize);
    this.sampleHidden = device.alloc(options.maxNumSeqs * this.hiddenRowBytes, 'step inputs');
  }

  enqueue({ rows, scheduled, inputs, hidden }: ForwardResult): () => ModelRunnerOutput {
    const promptLogprobs = this.enqueuePromptLogprobs(rows, hidden);
    const sampled = this.enqueueSampling(rows, hidden, inputs.logitsIndices, scheduled);
    return () => this.collect(rows, sampled, promptLogprobs);
  }

  close(): void {
    this.sampling.close();
    this.logitsEditor.free();
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
    { grammarBitmask, forcedTokens }: SchedulerOutput,
  ): SamplingResult {
    const numSampled = rows.reduce((count, row) => count + (row.samples ? 1 : 0), 0);
    this.sampling.begin(numSampled);
    const masks = masksByKey(grammarBitmask);
    const forced = new Map(forcedTokens.map(({ key, tokenId }) => [key, tokenId]));
    let i = 0;
    for (const { state, samples } of rows) {
      if (!samples) continue;
      const bitmask = masks?.get(state.key);
      const tokenId = forced.get(state.key);
      const sampling = tokenId === undefined ? state.sampling : forceToken(state.sampling, tokenId);
      this.sampling.setRow(i++, sampling, bitmask === undefined ? state : { ...state, bitmask });
    }
    if (numSampled === 0) return this.sampling.run(0, this.tokens.ptr, this.tokens.ld);
    this.device.ops.gather_rows(hidden, logitsIndices, this.sampleHidden, numSampled, this.options.hiddenSize);
    const logits = this.model.computeLogits(this.sampleHidden, numSampled);
    const reported = this.applyLogitsProcessors(rows, logits, numSampled);
    return this.sampling.run(logits, this.tokens.ptr, this.tokens.ld, reported);
  }

  /** @returns the model's own logits, where they have been changed and are to be reported */
  private applyLogitsProcessors(rows: readonly StepRow[], logits: DevicePtr, numSampled: number): DevicePtr {
    const edited: EditedRow[] = [];
    let row = 0;
    for (const { state, samples } of rows) {
      if (!samples) continue;
      const { logitsProcessors } = state;
      if (logitsProcessors !== null) edited.push({ row, edit: (values) => logitsProcessors.apply(values) });
      row++;
    }
    if (edited.length === 0) return logits;
    const isReported = this.options.logprobsMode.startsWith('raw_') && this.sampling.wantsLogprobs;
    const reported = isReported ? this.logitsEditor.keep(logits, numSampled) : logits;
    this.logitsEditor.edit(logits, edited);
    return reported;
  }

  private collect(
    rows: readonly StepRow[],
    sampled: SamplingResult,
    promptLogprobs: readonly (PromptLogprobs | null)[],
  ): ModelRunnerOutput {
    this.device.wait(sampled.event);
    const sampledTokenIds: number[][] = [];
    const logprobs: (LogprobsTensors | null)[] = [];
    const failures: ModelRunnerOutput['failures'] = [];
    let i = 0;
    for (const row of rows) {
      const { key, error, logitsProcessors } = row.state;
      const message = error ?? logitsProcessors?.failure ?? null;
      if (message !== null) failures.push({ key, message });
      sampledTokenIds.push(row.samples ? [sampled.sampled(i)] : []);
      logprobs.push(row.samples ? sampled.logprobs(i) : null);
      if (!row.samples) continue;
      logitsProcessors?.appendToken(sampled.sampled(i));
      i++;
    }
    return {
      keys: rows.map((row) => row.state.key),
      sampledTokenIds,
      logprobs,
      promptLogprobs: promptLogprobs.map((piece) => piece?.take() ?? null),
      failures,
    };
  }
}

function masksByKey(bitmask: GrammarBitmask | null): Map<number, Int32Array> | null {
  if (bitmask === null) return null;
  const { keys, wordsPerRow, words } = bitmask;
  return new Map(keys.map((key, row) => [key, words.subarray(row * wordsPerRow, (row + 1) * wordsPerRow)]));
}
