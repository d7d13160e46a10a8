import type { Device, DevicePtr, MatrixSource } from '../device/device.ts';
import { DTYPE_CODES, dtypeBytes } from '../device/dtype.ts';
import type { LayerContext } from './layer-context.ts';
import type { LinearKernel } from './linear-method.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** Rows of a token embedding, kept row-major on every rank. */
export class VocabEmbedding {
  private readonly device: Device;
  private readonly table: DevicePtr;
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
    this.table = context.device.uploadMatrix(matrix, context.dtype, 'weights');
    this.dtypeCode = DTYPE_CODES[context.dtype];
  }

  /** ids i32 [numTokens] to act out [numTokens, hiddenSize]. */
  forward(ids: DevicePtr, out: DevicePtr, numTokens: number): void {
    this.device.ops.embedding(
      ids,
      this.table,
      this.dtypeCode,
      out,
      numTokens,
      this.hiddenSize,
      this.vocabSize,
      this.scale,
    );
  }
}

/** Logits of the whole vocabulary. With tied embeddings, `prefix` is the embedding's: its matrix is then kept twice, packed here. */
export class LMHead {
  private readonly kernel: LinearKernel;
  private readonly logits: WorkspaceBuffer;

  constructor(
    context: LayerContext,
    prefix: string,
    private readonly vocabSize: number,
    private readonly hiddenSize: number,
    maxLogitRows: number,
  ) {
    const shard = {
      prefix,
      shape: [vocabSize, hiddenSize] as const,
      firstRow: 0,
      numRows: vocabSize,
      firstCol: 0,
      numCols: hiddenSize,
    };
    const spec = { shards: [shard], bias: false, purpose: 'weights', isLMHead: true };
    this.kernel = context.linearMethod.load(context.device, context.weights, context.dtype, spec);
    this.logits = context.workspace.scratch('logits', 'logits', maxLogitRows * vocabSize * dtypeBytes('float32'));
  }

  /** act hidden [rows, hiddenSize] to float32 logits [rows, vocabSize], whose address it returns. */
  forward(hidden: DevicePtr, rows: number): DevicePtr {
    this.kernel.applyFloat32(hidden, this.hiddenSize, this.logits.ptr, this.vocabSize, rows);
    return this.logits.ptr;
  }
}
