import type { Device, DevicePtr, MatrixSource, PackedLinear } from '../device/device.ts';
import { DTYPE_CODES, dtypeBytes } from '../device/dtype.ts';
import type { LayerContext } from './layer-context.ts';
import { type LinearKernel, type LinearShard, UnquantizedLinear } from './linear-method.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** Rows of a token embedding, whole on every rank. */
export class VocabEmbedding {
  /** [vocabSize, hiddenSize]; an LM head may multiply with the same. */
  readonly table: PackedLinear;
  private readonly device: Device;
  private readonly dtypeCode: number;

  /** @param scale multiplies the embeddings */
  constructor(
    context: LayerContext,
    prefix: string,
    private readonly vocabSize: number,
    private readonly hiddenSize: number,
    private readonly scale = 1,
  ) {
    this.device = context.device;
    const { ptr, dtype } = context.weights.get(`${prefix}.weight`, [vocabSize, hiddenSize]);
    const matrix: MatrixSource = { ptr, dtype, rows: vocabSize, cols: hiddenSize, ld: hiddenSize };
    this.table = context.device.packLinear([matrix], context.dtype, 'weights');
    this.dtypeCode = DTYPE_CODES[context.dtype];
  }

  /** ids i32 [numTokens] to act out [numTokens, hiddenSize]. */
  forward(ids: DevicePtr, out: DevicePtr, numTokens: number): void {
    this.device.ops.embedding(
      ids,
      this.table.ptr,
      this.dtypeCode,
      out,
      numTokens,
      this.hiddenSize,
      this.vocabSize,
      this.scale,
    );
  }
}

/** Logits of the whole vocabulary. */
export class LMHead {
  private readonly kernel: LinearKernel;
  private readonly logits: WorkspaceBuffer;

  /**
   * @param prefix module of the head's weight; the embedding's where they are tied
   * @param tied the embedding's packed weight, multiplied with as it is unless the method keeps weights otherwise; null where the head has its own
   */
  constructor(
    context: LayerContext,
    prefix: string,
    private readonly vocabSize: number,
    private readonly hiddenSize: number,
    maxLogitRows: number,
    tied: PackedLinear | null,
  ) {
    this.kernel =
      tied !== null && context.linearMethod.keepsTiedTable
        ? new UnquantizedLinear(context.device, tied, 0)
        : context.linearMethod.load(context.device, context.weights, context.dtype, {
            shards: [wholeMatrix(prefix, vocabSize, hiddenSize)],
            bias: false,
            purpose: 'weights',
            isLMHead: true,
          });
    context.work?.addLogits({ inFeatures: hiddenSize, outFeatures: vocabSize, bytes: this.kernel.bytes });
    this.logits = context.workspace.scratch('logits', 'logits', maxLogitRows * vocabSize * dtypeBytes('float32'));
  }

  /** act hidden [rows, hiddenSize] to float32 logits [rows, vocabSize], whose address it returns. */
  forward(hidden: DevicePtr, rows: number): DevicePtr {
    this.kernel.applyFloat32(hidden, this.hiddenSize, this.logits.ptr, this.vocabSize, rows);
    return this.logits.ptr;
  }
}

function wholeMatrix(prefix: string, rows: number, cols: number): LinearShard {
  return { prefix, shape: [rows, cols], firstRow: 0, numRows: rows, firstCol: 0, numCols: cols };
}
