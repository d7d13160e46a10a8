import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { LayerNorm } from '../layers/layer-norm.ts';
import type { PoolerHead } from '../layers/pooler-head.ts';
import type { WorkspaceBuffer } from '../layers/workspace.ts';
import type { PoolingModel } from './model.ts';
import type { ModelContext } from './model-context.ts';

/** What ids become before the first layer. */
export interface EncoderEmbeddings {
  /** ids i32 [numTokens] to act out [numTokens, hiddenSize]. */
  forward(inputIds: DevicePtr, out: DevicePtr, context: ForwardContext): void;
}

export interface EncoderLayer {
  /** Changes act hidden [numTokens, hiddenSize] in place. */
  forward(hidden: DevicePtr, context: ForwardContext): void;
}

export interface EncoderParts {
  embeddings: EncoderEmbeddings;
  layers: readonly EncoderLayer[];
  /** null where each layer ends with its own. */
  finalNorm: LayerNorm | null;
  head: PoolerHead | null;
  usesTokenTypes: boolean;
}

/** A stack of layers in which every token sees its whole sequence: it keeps no cache, and a sequence is computed in one step. */
export class EncoderModel implements PoolingModel {
  head: PoolerHead | null;
  readonly usesTokenTypes: boolean;
  private readonly firstPosition: number;
  private readonly hidden: WorkspaceBuffer;

  constructor(
    context: ModelContext,
    private readonly parts: EncoderParts,
  ) {
    this.firstPosition = context.config.firstPosition;
    this.head = parts.head;
    this.usesTokenTypes = parts.usesTokenTypes;
    this.hidden = context.workspace.persistent('hidden', hiddenBytes(context));
  }

  kvCacheSpecs(): Map<string, KvCacheSpec> {
    return new Map();
  }

  bindKvCache(): void {}

  positionOffset(): number {
    return this.firstPosition;
  }

  forward(inputIds: DevicePtr, context: ForwardContext): DevicePtr {
    const hidden = this.hidden.ptr;
    this.parts.embeddings.forward(inputIds, hidden, context);
    for (const layer of this.parts.layers) layer.forward(hidden, context);
    this.parts.finalNorm?.forward(hidden, hidden, context.numTokens);
    return hidden;
  }
}

/** Bytes of act [maxNumTokens, hiddenSize]. */
export function hiddenBytes({ config, device, maxNumTokens }: ModelContext): number {
  return maxNumTokens * config.hiddenSize * dtypeBytes(device.activationDtype);
}

/** The residual stream's additions. */
export class ResidualSum {
  private readonly device: Device;
  private readonly hiddenSize: number;

  constructor({ device, config }: ModelContext) {
    this.device = device;
    this.hiddenSize = config.hiddenSize;
  }

  /** hidden += x, act [numTokens, hiddenSize]. */
  add(x: DevicePtr, hidden: DevicePtr, numTokens: number): void {
    this.device.ops.add(hidden, x, hidden, numTokens * this.hiddenSize);
  }
}
