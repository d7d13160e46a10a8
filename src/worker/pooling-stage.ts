import type { Device, DeviceEvent, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { StagedArray } from '../device/staged-array.ts';
import type { PoolingModel } from '../models/model.ts';
import { finishPooling, type PoolerOutput } from '../pooling/finish-pooling.ts';
import type { PoolingConfig, SeqPoolingType } from '../pooling/pooling-config.ts';
import { isTokenwise, type PoolingParams } from '../pooling/pooling-params.ts';
import type { ModelRunnerOutput } from '../scheduler/scheduler-output.ts';
import type { ForwardResult, OutputStage } from './output-stage.ts';
import type { StepRow } from './step-inputs.ts';

export interface PoolingStageOptions {
  config: PoolingConfig;
  hiddenSize: number;
  maxNumBatchedTokens: number;
}

/** Pooled rows of one step on their way to the host. */
interface PooledRows {
  values: StagedArray;
  width: number;
  ready: DeviceEvent;
}

const AS_ACT = 0;
const AS_FLOAT32 = 1;

/** Hidden states to embeddings or class logits: of each sequence when its last token is computed, or of each token. */
export class PoolingStage implements OutputStage {
  /** A step's own until it has been collected: two steps may be in flight. */
  private readonly spans: readonly [StagedArray, StagedArray];
  private readonly outputs: readonly [StagedArray, StagedArray];
  /** act [rows, hiddenSize], for the classifier. */
  private readonly pooled: DevicePtr;
  private step = 0;

  constructor(
    private readonly device: Device,
    private readonly model: PoolingModel,
    private readonly options: PoolingStageOptions,
  ) {
    const pair = () => [new StagedArray(device, 'pooling'), new StagedArray(device, 'pooling')] as const;
    this.spans = pair();
    this.outputs = pair();
    const { maxNumBatchedTokens, hiddenSize } = options;
    const bytes = maxNumBatchedTokens * hiddenSize * dtypeBytes(device.activationDtype);
    this.pooled = model.classifier === null ? 0 : device.alloc(bytes, 'pooling');
  }

  enqueue({ rows, hidden }: ForwardResult): () => ModelRunnerOutput {
    const counts = rows.map(numPooledRows);
    const pooled = this.enqueuePooling(rows, counts, hidden);
    return () => this.collect(rows, counts, pooled);
  }

  close(): void {
    for (const array of [...this.spans, ...this.outputs]) array.free();
    if (this.pooled !== 0) this.device.free(this.pooled);
  }

  private enqueuePooling(rows: readonly StepRow[], counts: readonly number[], hidden: DevicePtr): PooledRows {
    const { hiddenSize, config } = this.options;
    const { ops } = this.device;
    const { classifier } = this.model;
    const spans = this.spans[this.step % 2]!;
    const values = this.outputs[this.step++ % 2]!;
    const numRows = counts.reduce((sum, count) => sum + count, 0);
    const width = classifier?.numLabels ?? hiddenSize;
    if (numRows > 0) {
      writeSpans(spans, rows, config.seqPoolingType, numRows);
      values.reserve(numRows * width);
      if (classifier === null) {
        ops.mean_rows(hidden, spans.ptr, values.ptr, numRows, hiddenSize, AS_FLOAT32);
      } else {
        ops.mean_rows(hidden, spans.ptr, this.pooled, numRows, hiddenSize, AS_ACT);
        ops.copy_bytes(classifier.forward(this.pooled, numRows), values.ptr, numRows * width * 4);
      }
      values.download(numRows * width);
    }
    return { values, width, ready: this.device.record() };
  }

  private collect(
    rows: readonly StepRow[],
    counts: readonly number[],
    { values, width, ready }: PooledRows,
  ): ModelRunnerOutput {
    this.device.wait(ready);
    let first = 0;
    const poolerOutputs = rows.map((row, i) => {
      const piece = values.f32.slice(first * width, (first + counts[i]!) * width);
      first += counts[i]!;
      const params = row.state.pooling!;
      row.state.pooledPieces.push(piece);
      if (!row.samples) return null;
      const whole = { ...joinPieces(row.state.pooledPieces, width), isTokenwise: isTokenwise(params) };
      row.state.pooledPieces.length = 0;
      return finishPooling(whole, params, this.options.config);
    });
    const nothing = rows.map(() => null);
    return {
      keys: rows.map((row) => row.state.key),
      sampledTokenIds: rows.map(() => []),
      logprobs: nothing,
      promptLogprobs: nothing,
      poolerOutputs,
      failures: [],
    };
  }
}

/** Rows that a request gets of this step. */
function numPooledRows({ state, numScheduledTokens, samples }: StepRow): number {
  if (isTokenwise(paramsOf(state))) return numScheduledTokens;
  return samples ? 1 : 0;
}

function paramsOf({ pooling }: StepRow['state']): PoolingParams {
  if (pooling === null) throw new Error('a request without pooling parameters has come to a model that is pooled');
  return pooling;
}

/** Uploads i32 [numRows, 2]: first token and number of tokens of each row's mean. */
function writeSpans(spans: StagedArray, rows: readonly StepRow[], type: SeqPoolingType, numRows: number): void {
  spans.reserve(2 * numRows);
  let [at, token] = [0, 0];
  const write = (start: number, count: number) => {
    spans.i32[at++] = start;
    spans.i32[at++] = count;
  };
  for (const row of rows) {
    const count = row.numScheduledTokens;
    if (isTokenwise(paramsOf(row.state))) for (let i = 0; i < count; i++) write(token + i, 1);
    else if (row.samples && type === 'MEAN') write(token, count);
    else if (row.samples) write(type === 'CLS' ? token : token + count - 1, 1);
    token += count;
  }
  spans.upload(2 * numRows);
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
