import type { Device, DevicePtr } from '../device/device.ts';
import type { KvCacheConfig } from '../kv-cache/kv-cache-spec.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { LoRALayers } from '../lora/lora-layers.ts';
import type { LoRAManager } from '../lora/lora-manager.ts';
import type { Model } from '../models/model.ts';
import type { SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { InputBatch, type RequestState } from './input-batch.ts';
import type { OutputStage, OutputStep, TokenTable } from './output-stage.ts';
import type { PendingStep } from './pending-step.ts';
import { StepInputs, type StepRow } from './step-inputs.ts';

export interface ModelRunnerOptions {
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  maxModelLen: number;
  vocabSize: number;
  /** Adapters; absent or null: there are none. */
  loras?: { layers: LoRALayers; manager: LoRAManager } | null;
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
    private readonly options: ModelRunnerOptions,
    createStage: (tokens: TokenTable) => OutputStage,
  ) {
    const layerNames = kvCache.groups.map((group) => group.layerNames);
    // Without a group there is no slot to compute.
    const blockSize = kvCache.groups[0]?.spec.blockSize ?? 1;
    const { maxNumSeqs, maxNumBatchedTokens, maxModelLen, vocabSize, loras = null } = options;
    const usesTokenTypes = model.usesTokenTypes ?? false;
    const limits = { maxNumSeqs, maxNumTokens: maxNumBatchedTokens, maxModelLen };
    const shape = { blockSize, layerNames, usesTokenTypes, usesAdapters: loras !== null, ...limits };
    this.batch = new InputBatch(maxNumSeqs, layerNames.length, model, vocabSize, loras?.manager ?? null);
    this.inputs = [new StepInputs(device, shape), new StepInputs(device, shape)];
    this.ldTokenTable = maxModelLen + 1;
    this.tokenTable = device.alloc(maxNumSeqs * this.ldTokenTable * 4, 'token table');
    this.inputIds = device.alloc(maxNumBatchedTokens * 4, 'step inputs');
    this.stage = createStage({ ptr: this.tokenTable, ld: this.ldTokenTable });
  }

  /** Enqueues a step. At most two steps may be in flight; the inputs of the one before the last are waited for. */
  execute(scheduled: SchedulerOutput): PendingStep {
    const inputs = this.inputs[this.step++ % 2]!;
    if (inputs.inUseUntil !== null) this.device.wait(inputs.inUseUntil);

    const rows = this.updateStates(scheduled, inputs);
    // Steps of decode alone repeat: they differ only in what the inputs hold.
    const replaySize = rows.every(isDecode) ? this.device.replaySize(rows.length) : null;
    const context = inputs.build(rows, replaySize ?? rows.length);
    this.options.loras?.layers.setBatch(inputs.lora);
    const output = this.stage.begin({ rows, scheduled, inputs, replaySize });
    const hidden = this.enqueueOps(context, inputs, output, replaySize !== null);
    const wait = output.finish(hidden);
    for (const row of rows) if (row.samples) row.state.numTokens++;
    inputs.inUseUntil = this.device.record();
    return { wait };
  }

  close(): void {
    this.device.wait(this.device.record());
    this.batch.releaseAll();
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

  /** Enqueues the forward pass and what of the output is ops alone. */
  private enqueueOps(
    context: ForwardContext,
    { tokenSlots, tokenPositions }: StepInputs,
    output: OutputStep,
    replayable: boolean,
  ): DevicePtr {
    const { tokenTable, ldTokenTable, inputIds, device } = this;
    const enqueue = () => {
      device.ops.gather_token_ids(tokenTable, ldTokenTable, tokenSlots, tokenPositions, inputIds, context.numTokens);
      const hidden = this.model.forward(inputIds, context);
      output.enqueueOps?.(hidden);
      return hidden;
    };
    return replayable ? device.replayable(enqueue) : enqueue();
  }
}

/** One token that follows others of its sequence. */
function isDecode({ numScheduledTokens, numComputedTokens }: StepRow): boolean {
  return numScheduledTokens === 1 && numComputedTokens > 0;
}

function appendBlocks(state: RequestState, blockIds: readonly (readonly number[])[]): void {
  for (let group = 0; group < blockIds.length; group++) state.blockTables[group]!.append(blockIds[group]!);
}

function toRow(state: StepRow['state'], data: { numComputedTokens: number; numScheduledTokens: number }): StepRow {
  const { numComputedTokens, numScheduledTokens } = data;
  const samples = numComputedTokens + numScheduledTokens >= state.numTokens;
  return { state, numComputedTokens, numScheduledTokens, samples };
}
