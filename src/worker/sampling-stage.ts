import { type Device, type DevicePtr, OutOfMemoryError } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { logger } from '../logging/logger.ts';
import type { CausalLM } from '../models/model.ts';
import { joinLogprobs, type LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import { PromptLogprobs } from '../sampling/prompt-logprobs.ts';
import {
  type LogprobsMode,
  SamplingBatch,
  type SamplingResult,
  type SamplingRowState,
} from '../sampling/sampling-batch.ts';
import { forceToken, type SamplingRequest, withoutLists } from '../sampling/sampling-request.ts';
import type { GrammarBitmask, ModelRunnerOutput, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { RequestState } from './input-batch.ts';
import { type EditedRow, LogitsEditor } from './logits-editor.ts';
import type { OutputStage, OutputStep, ScheduledStep } from './output-stage.ts';
import type { StepRow } from './step-inputs.ts';
import type { TokenTable } from './token-table.ts';

const log = logger('worker');

export interface SamplingStageOptions {
  /** Most rows of logits at once. */
  maxLogitRows: number;
  hiddenSize: number;
  logprobsMode: LogprobsMode;
}

/** What a client is told; what holds the memory is the operator's to read. */
const NO_ROOM =
  'There is not enough memory for the log probabilities, lists of tokens or logits processors that the request asks for.';

/** A row of logits: behind the row's known tokens and `ahead` of its drafts. */
interface LogitRow {
  row: StepRow;
  ahead: number;
}

/** Requests of a step that end with an error, by key: what is wrong with each. */
type FailedRequests = Map<number, string>;

/** Runs what takes memory that only these rows' requests need: where there is none, they fail, and the step goes on without. False then. */
function attempt(rows: readonly StepRow[], failed: FailedRequests, run: () => void): boolean {
  try {
    run();
    return true;
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    log.warn(`A step wants more memory than there is, so ${rows.length} of its requests end: ${error.message}`);
    for (const { state } of rows) failed.set(state.key, NO_ROOM);
    return false;
  }
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
      maxRows: options.maxLogitRows,
      vocabSize: model.vocabSize,
      logprobsMode: options.logprobsMode,
    });
    this.logitsEditor = new LogitsEditor(device, model.vocabSize);
    this.sampleHidden = device.alloc(options.maxLogitRows * this.hiddenRowBytes, 'step inputs');
  }

  begin({ rows, scheduled, inputs, replaySize }: ScheduledStep): OutputStep {
    const logitRows = logitRowsOf(rows);
    // A host that edits logits comes in between, and without a row for each sequence steps would not repeat.
    const replayed =
      replaySize !== null &&
      logitRows.length === rows.length &&
      rows.every(({ state }) => state.logitsProcessors === null);
    const numLogits = replayed ? replaySize : logitRows.length;
    const failed: FailedRequests = new Map();
    this.setRows(logitRows, numLogits, scheduled, failed);
    if (replayed) {
      let logits = 0;
      return {
        enqueueOps: (hidden) => {
          logits = this.computeLogits(hidden, inputs.logitsIndices, numLogits);
          this.sampling.sample(logits, this.tokens.ptr, this.tokens.ld);
        },
        finish: () => {
          const sampled = this.sampling.finish(logits);
          return () => this.collect(rows, sampled, NO_PROMPT_LOGPROBS, failed);
        },
      };
    }
    return {
      finish: (hidden) => {
        const promptLogprobs = this.enqueuePromptLogprobs(rows, hidden, failed);
        const sampled = this.enqueueSampling(logitRows, hidden, inputs.logitsIndices, failed);
        return () => this.collect(rows, sampled, promptLogprobs, failed);
      },
    };
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
  private enqueuePromptLogprobs(
    rows: readonly StepRow[],
    hidden: DevicePtr,
    failed: FailedRequests,
  ): (PromptLogprobs | null)[] {
    let firstToken = 0;
    return rows.map((row) => {
      const start = firstToken;
      firstToken += row.numScheduledTokens;
      let logprobs: PromptLogprobs | null = null;
      attempt([row], failed, () => {
        logprobs = this.enqueuePromptLogprobsOf(row, hidden + start * this.hiddenRowBytes);
      });
      return logprobs;
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

  private setRows(
    logitRows: readonly LogitRow[],
    numLogits: number,
    { grammarBitmask, forcedTokens }: SchedulerOutput,
    failed: FailedRequests,
  ): void {
    this.sampling.begin(logitRows.length, numLogits);
    const masks = masksByKey(grammarBitmask);
    const forced = new Map(forcedTokens.map(({ key, tokenId }) => [key, tokenId]));
    logitRows.forEach(({ row, ahead }, i) => {
      const { state } = row;
      const bitmask = masks?.get(state.key);
      const tokenId = forced.get(state.key);
      const sampling = tokenId === undefined ? state.sampling : forceToken(state.sampling, tokenId);
      const set = (request: SamplingRequest) => this.sampling.setRow(i, request, rowState(state, ahead, bitmask));
      if (!attempt([row], failed, () => set(sampling))) set(withoutLists(sampling));
    });
    this.upload(logitRows, failed);
  }

  private upload(logitRows: readonly LogitRow[], failed: FailedRequests): void {
    try {
      this.sampling.upload();
    } catch (error) {
      const large = this.sampling.dropLargeLogprobs().map((i) => logitRows[i]!.row);
      attempt(large, failed, () => {
        throw error;
      });
      this.sampling.upload();
    }
  }

  /** float32 [rows, vocabSize] of the hidden states at logitsIndices. */
  private computeLogits(hidden: DevicePtr, logitsIndices: DevicePtr, rows: number): DevicePtr {
    this.device.ops.gather_rows(hidden, logitsIndices, this.sampleHidden, rows, this.options.hiddenSize);
    return this.model.computeLogits(this.sampleHidden, rows);
  }

  private enqueueSampling(
    logitRows: readonly LogitRow[],
    hidden: DevicePtr,
    logitsIndices: DevicePtr,
    failed: FailedRequests,
  ): SamplingResult {
    if (logitRows.length === 0) return this.sampling.finish(0);
    const logits = this.computeLogits(hidden, logitsIndices, logitRows.length);
    const reported = this.applyLogitsProcessors(logitRows, logits, failed);
    this.sampling.sample(logits, this.tokens.ptr, this.tokens.ld);
    return this.sampling.finish(logits, reported);
  }

  /** @returns the model's own logits, where they have been changed and are to be reported */
  private applyLogitsProcessors(logitRows: readonly LogitRow[], logits: DevicePtr, failed: FailedRequests): DevicePtr {
    const edited: EditedRow[] = [];
    logitRows.forEach(({ row: { state } }, row) => {
      const { logitsProcessors } = state;
      if (logitsProcessors !== null) edited.push({ row, edit: (values) => logitsProcessors.apply(values) });
    });
    if (edited.length === 0) return logits;
    const isReported = this.options.logprobsMode.startsWith('raw_') && this.sampling.wantsLogprobs;
    let reported = logits;
    const editedRows = edited.map(({ row }) => logitRows[row]!.row);
    attempt(editedRows, failed, () => {
      if (isReported) reported = this.logitsEditor.keep(logits, logitRows.length);
      this.logitsEditor.edit(logits, edited);
    });
    return reported;
  }

  private collect(
    rows: readonly StepRow[],
    sampled: SamplingResult,
    promptLogprobs: readonly (PromptLogprobs | null)[],
    failed: FailedRequests,
  ): ModelRunnerOutput {
    this.device.wait(sampled.event);
    const sampledTokenIds: number[][] = [];
    const logprobs: (LogprobsTensors | null)[] = [];
    const failures: ModelRunnerOutput['failures'] = [];
    let first = 0;
    for (const row of rows) {
      const { key, error, logitsProcessors } = row.state;
      const message = error ?? logitsProcessors?.failure ?? failed.get(key) ?? null;
      if (message !== null) failures.push({ key, message });
      const tokenIds = row.samples ? verify(row.draftTokenIds, sampled, first) : [];
      sampledTokenIds.push(tokenIds);
      logprobs.push(logprobsOf(sampled, first, tokenIds.length));
      for (const tokenId of tokenIds) logitsProcessors?.appendToken(tokenId);
      if (row.samples) first += 1 + row.draftTokenIds.length;
    }
    return {
      keys: rows.map((row) => row.state.key),
      sampledTokenIds,
      logprobs,
      promptLogprobs: rows.map((_, row) => promptLogprobs[row]?.take() ?? null),
      failures,
    };
  }
}

function logitRowsOf(rows: readonly StepRow[]): LogitRow[] {
  const logitRows: LogitRow[] = [];
  for (const row of rows) {
    if (!row.samples) continue;
    for (let ahead = 0; ahead <= row.draftTokenIds.length; ahead++) logitRows.push({ row, ahead });
  }
  return logitRows;
}

function rowState(state: RequestState, ahead: number, bitmask: Int32Array | undefined): SamplingRowState {
  if (ahead === 0 && bitmask === undefined) return state;
  const { slot, numPromptTokens, numTokens } = state;
  return { slot, numPromptTokens, numTokens: numTokens + ahead, bitmask: bitmask ?? null };
}

/**
 * The drafts that are what was sampled in their places, and the token behind them. Each place was sampled as it would have been without drafts, with
 * the draw of that place, so nothing but the number of steps depends on the guesses.
 *
 * @param first the result's first row of this request
 */
function verify(draftTokenIds: readonly number[], sampled: SamplingResult, first: number): number[] {
  const tokenIds = [sampled.sampled(first)];
  while (tokenIds.length <= draftTokenIds.length && tokenIds.at(-1) === draftTokenIds[tokenIds.length - 1])
    tokenIds.push(sampled.sampled(first + tokenIds.length));
  return tokenIds;
}

function logprobsOf(sampled: SamplingResult, first: number, count: number): LogprobsTensors | null {
  const logprobs = count === 0 ? null : sampled.logprobs(first);
  if (count <= 1 || logprobs === null) return logprobs;
  return joinLogprobs(Array.from({ length: count }, (_, i) => sampled.logprobs(first + i)!));
}

/** Of a step in which every row samples: its prompts are computed. */
const NO_PROMPT_LOGPROBS: readonly PromptLogprobs[] = [];

function masksByKey(bitmask: GrammarBitmask | null): Map<number, Int32Array> | null {
  if (bitmask === null) return null;
  const { keys, wordsPerRow, words } = bitmask;
  return new Map(keys.map((key, row) => [key, words.subarray(row * wordsPerRow, (row + 1) * wordsPerRow)]));
}
