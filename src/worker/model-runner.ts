import type { Device } from '../device/device.ts';
import type { KvCacheConfig } from '../kv-cache/kv-cache-spec.ts';
import type { LoRALayers } from '../lora/lora-layers.ts';
import type { LoRAManager } from '../lora/lora-manager.ts';
import type { Model } from '../models/model.ts';
import type {
  CachedRequestData,
  ModelRunnerOutput,
  NewRequestData,
  SchedulerOutput,
} from '../scheduler/scheduler-output.ts';
import type { DraftModelRunner } from './draft-model-runner.ts';
import { ForwardPass } from './forward-pass.ts';
import { InputBatch, type RequestState } from './input-batch.ts';
import type { OutputStage } from './output-stage.ts';
import type { PendingStep } from './pending-step.ts';
import type { NewTokens, StepInputs, StepRow, StepShape } from './step-inputs.ts';
import type { TokenTable } from './token-table.ts';

export interface ModelRunnerOptions {
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  /** Most rows of logits in a step. */
  maxLogitRows: number;
  maxModelLen: number;
  vocabSize: number;
  /** Adapters; absent or null: there are none. */
  loras?: { layers: LoRALayers; manager: LoRAManager } | null;
}

/** What a runner is given besides its model, each made for where the tokens are. */
export interface RunnerParts {
  /** What is to become of hidden states. */
  createStage(tokens: TokenTable): OutputStage;
  /** Who guesses what comes next; absent or null: nobody. */
  createDrafter?(tokens: TokenTable, shape: StepShape): DraftModelRunner | null;
}

/**
 * Turns a SchedulerOutput into one forward pass and what its output stage makes of it: SchedulerOutput → flat batch → hidden states → tokens, or
 * pooled vectors.
 *
 * The token table (i32 [maxNumSeqs, maxModelLen + 1] on the device) holds every token of every running request. The step's ids are gathered from it and
 * sampled tokens are written to it on the device, so the next step can be enqueued before this one's tokens are known to the host. Drafts are written
 * behind the known tokens; what is sampled takes their places.
 */
export class ModelRunner {
  private readonly batch: InputBatch;
  private readonly pass: ForwardPass;
  private readonly stage: OutputStage;
  private readonly drafter: DraftModelRunner | null;
  private readonly tokens: TokenTable;

  constructor(
    private readonly device: Device,
    model: Model,
    kvCache: KvCacheConfig,
    private readonly options: ModelRunnerOptions,
    parts: RunnerParts,
  ) {
    const layerNames = kvCache.groups.map((group) => group.layerNames);
    // Without a group there is no slot to compute.
    const blockSize = kvCache.groups[0]?.spec.blockSize ?? 1;
    const { maxNumSeqs, maxNumBatchedTokens, maxLogitRows, maxModelLen, vocabSize, loras = null } = options;
    const usesTokenTypes = model.usesTokenTypes ?? false;
    const limits = { maxNumSeqs, maxNumTokens: maxNumBatchedTokens, maxLogitRows, maxModelLen };
    const shape = { blockSize, layerNames, usesTokenTypes, usesAdapters: loras !== null, ...limits };
    this.batch = new InputBatch(maxNumSeqs, layerNames.length, model, vocabSize, loras?.manager ?? null);
    const ld = maxModelLen + 1;
    this.tokens = { ptr: device.alloc(maxNumSeqs * ld * 4, 'token table'), ld };
    this.pass = new ForwardPass(device, model, this.tokens, shape);
    this.stage = parts.createStage(this.tokens);
    this.drafter = parts.createDrafter?.(this.tokens, shape) ?? null;
  }

  /** Enqueues a step. At most two steps may be in flight; the inputs of the one before the last are waited for. With a draft model it is one. */
  execute(scheduled: SchedulerOutput): PendingStep {
    const inputs = this.pass.begin();
    const rows = this.updateStates(scheduled, inputs);
    // Steps of decode alone repeat: they differ only in what the inputs hold.
    const replaySize = rows.every(isDecode) ? this.device.replaySize(rows.length) : null;
    const context = inputs.build(rows, replaySize ?? rows.length);
    this.options.loras?.layers.setBatch(inputs.lora);
    const output = this.stage.begin({ rows, scheduled, inputs, replaySize });
    const enqueue = () => {
      const hidden = this.pass.enqueue(inputs, context);
      output.enqueueOps?.(hidden);
      return hidden;
    };
    const hidden = replaySize === null ? enqueue() : this.device.replayable(enqueue);
    const wait = output.finish(hidden);
    for (const row of rows) if (row.samples) row.state.numTokens++;
    this.pass.end(inputs);
    return { wait: () => this.settle(rows, wait()) };
  }

  close(): void {
    this.device.wait(this.device.record());
    this.batch.releaseAll();
    this.stage.close();
    this.drafter?.close();
    this.pass.free();
    this.device.free(this.tokens.ptr);
  }

  /** Takes over what changed and gives the step's rows: requests held already, then the new ones. */
  private updateStates(scheduled: SchedulerOutput, inputs: StepInputs): StepRow[] {
    for (const key of scheduled.releasedKeys) this.batch.release(key);
    const rows: StepRow[] = [];
    const added: NewTokens[] = [];
    for (const data of scheduled.cachedRequests) {
      const state = this.batch.get(data.key);
      const { specTokenIds } = data;
      appendBlocks(state, data.newBlockIds);
      if (specTokenIds.length > 0) added.push({ slot: state.slot, at: state.numTokens, tokenIds: specTokenIds });
      rows.push(toRow(state, data, specTokenIds));
    }
    for (const data of scheduled.newRequests) {
      const state = this.batch.add(data);
      appendBlocks(state, data.blockIds);
      added.push({ slot: state.slot, at: 0, tokenIds: data.tokenIds });
      rows.push(toRow(state, data, NO_DRAFTS));
    }
    inputs.writeNewTokens(added, this.tokens);
    return rows;
  }

  /** Drafts that hold count as tokens, and are what the next ones are guessed behind. */
  private settle(rows: readonly StepRow[], result: ModelRunnerOutput): ModelRunnerOutput {
    rows.forEach(({ state }, i) => {
      const { length } = result.sampledTokenIds[i]!;
      if (length > 1) state.numTokens += length - 1;
    });
    if (this.drafter !== null) result.draftTokens = this.drafter.propose(rows, result.sampledTokenIds);
    return result;
  }
}

const NO_DRAFTS: readonly number[] = [];

/** One token that follows others of its sequence. */
function isDecode({ numScheduledTokens, numComputedTokens }: StepRow): boolean {
  return numScheduledTokens === 1 && numComputedTokens > 0;
}

function appendBlocks(state: RequestState, blockIds: readonly (readonly number[])[]): void {
  for (let group = 0; group < blockIds.length; group++) state.blockTables[group]!.append(blockIds[group]!);
}

function toRow(
  state: RequestState,
  { numComputedTokens, numScheduledTokens }: CachedRequestData | NewRequestData,
  draftTokenIds: readonly number[],
): StepRow {
  const samples = numComputedTokens + numScheduledTokens >= state.numTokens;
  const { positionOffset } = state;
  return { state, positionOffset, numComputedTokens, numScheduledTokens, samples, draftTokenIds };
}
