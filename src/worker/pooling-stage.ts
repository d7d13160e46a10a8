import type { Device, DeviceEvent, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { PoolerHead } from '../layers/pooler-head.ts';
import { loraGroupWords, writeLoRAGroups } from '../lora/lora-batch.ts';
import type { LoRALayers } from '../lora/lora-layers.ts';
import type { PoolingModel } from '../models/model.ts';
import { finishPooling, type PoolerOutput } from '../pooling/finish-pooling.ts';
import type { PoolingConfig } from '../pooling/pooling-config.ts';
import { isTokenwise } from '../pooling/pooling-params.ts';
import type { ModelRunnerOutput } from '../scheduler/scheduler-output.ts';
import type { OutputStage, OutputStep, ScheduledStep } from './output-stage.ts';
import { PooledRows } from './pooled-rows.ts';

export interface PoolingStageOptions {
  config: PoolingConfig;
  hiddenSize: number;
  maxNumBatchedTokens: number;
  maxNumSeqs: number;
  /** null: there are none. */
  adapters: Pick<LoRALayers, 'setBatch'> | null;
}

/** What a step has pooled, on its way to the host. */
interface PooledValues {
  values: StagedArray;
  /** Elements from one row to the next, and how many of them count for each part. */
  stride: number;
  widths: number[];
  ready: DeviceEvent;
}

const AS_ACT = 0;
const AS_FLOAT32 = 1;

/** Hidden states to embeddings or class logits: of each sequence when its last token is computed, or of each token. */
export class PoolingStage implements OutputStage {
  /** A step's own until it has been collected: two steps may be in flight. */
  private readonly inputs: readonly [StagedArray, StagedArray];
  private readonly outputs: readonly [StagedArray, StagedArray];
  /** act [rows, hiddenSize], for the head. */
  private readonly pooled: DevicePtr;
  private step = 0;

  constructor(
    private readonly device: Device,
    private readonly model: PoolingModel,
    private readonly options: PoolingStageOptions,
  ) {
    const pair = () => [new StagedArray(device, 'pooling'), new StagedArray(device, 'pooling')] as const;
    this.inputs = pair();
    this.outputs = pair();
    const { maxNumBatchedTokens, maxNumSeqs, hiddenSize, adapters } = options;
    // A row for each token, and where their adapters are: see LoRABatch.
    const adapterWords = adapters === null ? 0 : maxNumBatchedTokens + 2 * maxNumSeqs + 1;
    for (const inputs of this.inputs) inputs.reserve(2 * maxNumBatchedTokens + adapterWords);
    for (const values of this.outputs) values.reserve(maxNumBatchedTokens * (model.head?.width ?? hiddenSize));
    const bytes = maxNumBatchedTokens * hiddenSize * dtypeBytes(device.activationDtype);
    this.pooled = model.head === null ? 0 : device.alloc(bytes, 'pooling');
  }

  begin({ rows }: ScheduledStep): OutputStep {
    return {
      finish: (hidden) => {
        const pooledRows = new PooledRows(rows);
        const values = this.enqueuePooling(pooledRows, hidden);
        return () => this.collect(pooledRows, values);
      },
    };
  }

  close(): void {
    for (const array of [...this.inputs, ...this.outputs]) array.free();
    if (this.pooled !== 0) this.device.free(this.pooled);
  }

  private enqueuePooling(rows: PooledRows, hidden: DevicePtr): PooledValues {
    const { hiddenSize } = this.options;
    const { ops } = this.device;
    const { head } = this.model;
    const inputs = this.inputs[this.step % 2]!;
    const values = this.outputs[this.step++ % 2]!;
    const { numRows } = rows;
    const stride = head?.width ?? hiddenSize;
    const widths = rows.parts.map(({ row }) => head?.widthOf(row.state.lora?.slot ?? null) ?? hiddenSize);
    if (numRows > 0) {
      this.uploadInputs(rows, inputs, head !== null);
      values.reserve(numRows * stride);
      if (head === null) ops.mean_rows(hidden, inputs.ptr, values.ptr, numRows, hiddenSize, AS_FLOAT32);
      else {
        ops.mean_rows(hidden, inputs.ptr, this.pooled, numRows, hiddenSize, AS_ACT);
        this.runHead(head, rows, values);
      }
      values.download(numRows * stride);
    }
    return { values, stride, widths, ready: this.device.record() };
  }

  /** Where each row comes from, and, for a head, which adapter it has. */
  private uploadInputs(rows: PooledRows, inputs: StagedArray, hasHead: boolean): void {
    const { config, adapters } = this.options;
    const adaptersAt = 2 * rows.numRows;
    const groups = hasHead && adapters !== null ? rows.adapterGroups() : null;
    const total = adaptersAt + (groups === null ? 0 : loraGroupWords(groups));
    inputs.reserve(total);
    rows.writeSpans(inputs.i32, config.seqPoolingType);
    adapters?.setBatch(groups && writeLoRAGroups(groups, inputs.i32, adaptersAt, inputs.ptr));
    inputs.upload(total);
  }

  private runHead(head: PoolerHead, { groups, numRows }: PooledRows, values: StagedArray): void {
    const bytes = numRows * head.width * dtypeBytes('float32');
    this.device.ops.copy_bytes(head.forward(this.pooled, groups), values.ptr, bytes);
  }

  private collect({ parts }: PooledRows, { values, stride, widths, ready }: PooledValues): ModelRunnerOutput {
    this.device.wait(ready);
    const poolerOutputs = parts.map(({ row, firstRow, numRows }, i) => {
      const width = widths[i]!;
      const { state } = row;
      state.pooledPieces.push(
        beginsOfRows(values.f32.subarray(firstRow * stride, (firstRow + numRows) * stride), stride, width),
      );
      if (!row.samples) return null;
      const params = state.pooling!;
      const whole = { ...joinPieces(state.pooledPieces, width), isTokenwise: isTokenwise(params) };
      state.pooledPieces.length = 0;
      return finishPooling(whole, params, this.options.config);
    });
    const nothing = parts.map(() => null);
    return {
      keys: parts.map(({ row }) => row.state.key),
      sampledTokenIds: parts.map(() => []),
      logprobs: nothing,
      promptLogprobs: nothing,
      poolerOutputs,
      failures: parts.flatMap(({ row: { state } }) =>
        state.error === null ? [] : [{ key: state.key, message: state.error }],
      ),
    };
  }
}

/** A copy of the first `width` elements of each row. */
function beginsOfRows(values: Float32Array, stride: number, width: number): Float32Array {
  if (width === stride) return values.slice();
  const numRows = values.length / stride;
  const begins = new Float32Array(numRows * width);
  for (let row = 0; row < numRows; row++) {
    begins.set(values.subarray(row * stride, row * stride + width), row * width);
  }
  return begins;
}

function joinPieces(pieces: readonly Float32Array[], width: number): Omit<PoolerOutput, 'isTokenwise'> {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const values = new Float32Array(length);
  let at = 0;
  for (const piece of pieces) {
    values.set(piece, at);
    at += piece.length;
  }
  return { numRows: length / width, width, values };
}
