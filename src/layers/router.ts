import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { readVector } from './host-vector.ts';
import type { LayerContext } from './layer-context.ts';
import { type LinearKernel, unquantizedLinearMethod } from './linear-method.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** Codes of `moe_route`. */
const SCORING_CODES = { softmax: 0, sigmoid: 1 } as const;

export interface RouterOptions {
  /** Module name of the matrix that gives the logits. */
  prefix: string;
  hiddenSize: number;
  bias: boolean;
  numExperts: number;
  /** Experts of a token. */
  topK: number;
  scoring: keyof typeof SCORING_CODES;
  /** The chosen experts' weights add up to 1 before they are scaled. */
  renormalize: boolean;
  scale?: number;
  /** Choice among the best groups of experts; one group when absent. */
  groups?: { count: number; topK: number };
  /** Tensor that is added to the scores for the choice alone. */
  correctionBias?: string;
  maxNumTokens: number;
}

/** Chooses the experts of each token and what they weigh. */
export class Router {
  /** i32 [numTokens, topK] */
  readonly ids: WorkspaceBuffer;
  /** float32 [numTokens, topK] */
  readonly weights: WorkspaceBuffer;
  private readonly device: Device;
  private readonly gate: LinearKernel;
  private readonly correctionBias: DevicePtr;
  private readonly logits: WorkspaceBuffer;

  /** Throws an Error where a token can't have that many experts. */
  constructor(
    context: LayerContext,
    private readonly options: RouterOptions,
  ) {
    const { device, weights, workspace } = context;
    const { prefix, numExperts, topK, hiddenSize, bias, maxNumTokens, correctionBias, groups } = options;
    checkChoice(prefix, numExperts, topK, groups ?? { count: 1, topK: 1 });
    this.device = device;
    // Float32, whatever the other weights are: a rounded logit may choose another expert, and the matrix is small.
    this.gate = unquantizedLinearMethod.load(device, weights, 'float32', {
      shards: [
        {
          prefix,
          shape: [numExperts, hiddenSize],
          firstRow: 0,
          numRows: numExperts,
          firstCol: 0,
          numCols: hiddenSize,
        },
      ],
      bias,
      purpose: 'weights',
    });
    this.correctionBias =
      correctionBias === undefined
        ? 0
        : device.uploadVector(readVector(weights.get(correctionBias, [numExperts]), 0, numExperts), 'weights');
    const float = dtypeBytes('float32');
    this.logits = workspace.scratch('mlp', 'router_logits', maxNumTokens * numExperts * float);
    this.ids = workspace.scratch('mlp', 'expert_ids', maxNumTokens * topK * dtypeBytes('int32'));
    this.weights = workspace.scratch('mlp', 'expert_weights', maxNumTokens * topK * float);
  }

  /** Fills `ids` and `weights` for act x [numTokens, hiddenSize]. */
  forward(x: DevicePtr, numTokens: number): void {
    const { hiddenSize, numExperts, topK, scoring, groups, renormalize, scale } = this.options;
    this.gate.applyFloat32(x, hiddenSize, this.logits.ptr, numExperts, numTokens);
    this.device.ops.moe_route(
      this.logits.ptr,
      this.correctionBias,
      this.ids.ptr,
      this.weights.ptr,
      numTokens,
      numExperts,
      topK,
      SCORING_CODES[scoring],
      groups?.count ?? 1,
      groups?.topK ?? 1,
      renormalize ? 1 : 0,
      scale ?? 1,
    );
  }
}

function checkChoice(prefix: string, numExperts: number, topK: number, groups: { count: number; topK: number }): void {
  if (numExperts % groups.count !== 0 || groups.topK > groups.count) {
    throw new Error(
      `${prefix}: can't choose ${groups.topK} of ${groups.count} groups of ${numExperts} experts; expected equal groups, and no more than there are.`,
    );
  }
  const eligible = (numExperts / groups.count) * groups.topK;
  if (topK > eligible) {
    throw new Error(
      `${prefix}: can't choose ${topK} experts of a token; expected at most the ${eligible} to choose from.`,
    );
  }
}
