import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { uploadBytes } from '../device/upload-bytes.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import { type Activation, activation } from './activation.ts';
import type { LayerContext } from './layer-context.ts';
import { type LinearKernel, unquantizedLinearMethod } from './linear-method.ts';
import { countRows, type HeadRows, type PoolerHead } from './pooler-head.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** A `Dense` module of Sentence Transformers. */
export interface DenseLayer {
  inFeatures: number;
  outFeatures: number;
  bias: boolean;
  /** By transformers' name; null: none. */
  act: string | null;
}

/** Pooled hidden states through dense layers: how Sentence Transformers give an embedding another size. */
export class DenseHead implements PoolerHead {
  readonly width: number;
  private readonly device: Device;
  private readonly layers: readonly { layer: DenseLayer; kernel: LinearKernel; activate: Activation | null }[];
  /** Each layer's output goes into the one that the layer before has left. */
  private readonly buffers: readonly [WorkspaceBuffer, WorkspaceBuffer];
  private readonly out: WorkspaceBuffer;
  /** i32 [maxRows, 2]: every row by itself, to write it in float32. */
  private readonly rowSpans: DevicePtr;

  /** @param maxRows most rows at once */
  constructor(context: LayerContext, modules: readonly (DenseLayer & { weights: WeightSource })[], maxRows: number) {
    const { device, workspace, dtype } = context;
    this.device = device;
    this.width = modules.at(-1)!.outFeatures;
    this.layers = modules.map(({ weights, ...layer }) => {
      const { inFeatures, outFeatures, bias, act } = layer;
      const shape = [outFeatures, inFeatures] as const;
      const shard = {
        prefix: prefixOf(weights),
        shape,
        firstRow: 0,
        numRows: outFeatures,
        firstCol: 0,
        numCols: inFeatures,
      };
      const kernel = unquantizedLinearMethod.load(device, weights, dtype, {
        shards: [shard],
        bias,
        purpose: 'weights',
      });
      return { layer, kernel, activate: act === null ? null : activation(device, act) };
    });
    const widest = Math.max(...modules.map(({ outFeatures }) => outFeatures));
    const bytes = maxRows * widest * dtypeBytes(device.activationDtype);
    this.buffers = [workspace.scratch('logits', 'dense_0', bytes), workspace.scratch('logits', 'dense_1', bytes)];
    this.out = workspace.scratch('logits', 'embeddings', maxRows * this.width * dtypeBytes('float32'));
    const spans = Int32Array.from({ length: 2 * maxRows }, (_, i) => (i % 2 === 0 ? i / 2 : 1));
    this.rowSpans = uploadBytes(device, new Uint8Array(spans.buffer), 'weights');
  }

  widthOf(): number {
    return this.width;
  }

  forward(pooled: DevicePtr, groups: readonly HeadRows[]): DevicePtr {
    const rows = countRows(groups);
    const asFloat32 = 1;
    let hidden = pooled;
    this.layers.forEach(({ layer, kernel, activate }, index) => {
      const out = this.buffers[index % 2]!.ptr;
      kernel.apply(hidden, layer.inFeatures, out, layer.outFeatures, rows);
      activate?.(out, rows * layer.outFeatures);
      hidden = out;
    });
    this.device.ops.mean_rows(hidden, this.rowSpans, this.out.ptr, rows, this.width, asFloat32);
    return this.out.ptr;
  }
}

/** The module that holds the matrix: Sentence Transformers' own, or names that other tools save. */
function prefixOf(weights: WeightSource): string {
  return ['linear', 'dense'].find((name) => weights.has(`${name}.weight`)) ?? 'linear';
}
