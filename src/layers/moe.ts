import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { quantizableMatrix } from './fp8-matrix.ts';
import type { ExpertLinearSpec, GroupedLinearKernel } from './grouped-linear.ts';
import type { LayerContext } from './layer-context.ts';
import type { FeedForward, GatedActivation } from './mlp.ts';
import { Router, type RouterOptions } from './router.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** The experts' weights as a checkpoint has them: gate over up, and down. */
export interface ExpertWeights {
  gateUp: ExpertLinearSpec;
  down: ExpertLinearSpec;
}

export interface MixtureOfExpertsOptions {
  router: RouterOptions;
  /** Width of an expert. */
  intermediateSize: number;
  experts: ExpertWeights;
  activation: GatedActivation;
  /** An MLP that every token goes through beside its experts. */
  shared: FeedForward | null;
}

/** Experts of which each matrix is a tensor of its own, as most checkpoints have them. */
export function separateExperts(
  { weights }: LayerContext,
  sizes: { numExperts: number; hiddenSize: number; intermediateSize: number },
  /** Module names of one expert's matrices. */
  prefixes: (expert: number) => { gate: string; up: string; down: string },
): ExpertWeights {
  const { numExperts, hiddenSize, intermediateSize } = sizes;
  const matrix = (prefix: string, rows: number, cols: number) =>
    quantizableMatrix(weights, { prefix, shape: [rows, cols], firstRow: 0, numRows: rows, firstCol: 0, numCols: cols });
  const common = { numExperts, biases: null, purpose: 'weights' };
  return {
    gateUp: {
      ...common,
      matrices: (expert) => {
        const { gate, up } = prefixes(expert);
        return [matrix(gate, intermediateSize, hiddenSize), matrix(up, intermediateSize, hiddenSize)];
      },
    },
    down: { ...common, matrices: (expert) => [matrix(prefixes(expert).down, hiddenSize, intermediateSize)] },
  };
}

/**
 * A mixture of gated MLPs: each token goes through the few experts that the router chooses for it, whose outputs are added by weight.
 * Pairs of token and expert are rows sorted by expert, so that an expert's weights are read once for all its rows.
 */
export class MixtureOfExperts implements FeedForward {
  private readonly device: Device;
  private readonly router: Router;
  private readonly gateUpProj: GroupedLinearKernel;
  private readonly downProj: GroupedLinearKernel;
  private readonly expertOffsets: WorkspaceBuffer;
  private readonly rowOfPair: WorkspaceBuffer;
  private readonly tokenOfRow: WorkspaceBuffer;
  /** First the experts' inputs, then their outputs: act [numTokens * topK, hiddenSize]. */
  private readonly rows: WorkspaceBuffer;
  private readonly gateUp: WorkspaceBuffer;
  private readonly activated: WorkspaceBuffer;
  private readonly sharedOut: WorkspaceBuffer;

  private readonly options: Omit<MixtureOfExpertsOptions, 'experts'>;

  constructor(context: LayerContext, { experts, ...options }: MixtureOfExpertsOptions) {
    this.options = options;
    const { device, workspace } = context;
    const { intermediateSize, shared } = options;
    const { maxNumTokens, numExperts, topK, hiddenSize } = options.router;
    this.device = device;
    this.router = new Router(context, options.router);
    this.gateUpProj = loadExperts(context, experts.gateUp);
    this.downProj = loadExperts(context, experts.down);
    this.tellWork(context);

    const maxRows = maxNumTokens * topK;
    const elementBytes = dtypeBytes(device.activationDtype);
    const indexBytes = dtypeBytes('int32');
    const scratch = (name: string, bytes: number) => workspace.scratch('mlp', name, bytes);
    this.expertOffsets = scratch('expert_offsets', (numExperts + 1) * indexBytes);
    this.rowOfPair = scratch('row_of_pair', maxRows * indexBytes);
    this.tokenOfRow = scratch('token_of_row', maxRows * indexBytes);
    this.rows = scratch('expert_rows', maxRows * hiddenSize * elementBytes);
    this.gateUp = scratch('expert_gate_up', maxRows * 2 * intermediateSize * elementBytes);
    this.activated = scratch('expert_activated', maxRows * intermediateSize * elementBytes);
    this.sharedOut = scratch('shared_out', shared === null ? 0 : maxNumTokens * hiddenSize * elementBytes);
  }

  private tellWork({ work }: LayerContext): void {
    const { intermediateSize, router } = this.options;
    const { hiddenSize, topK } = router;
    const [gateUp, down] = [this.gateUpProj, this.downProj];
    work?.addExperts(router, { inFeatures: hiddenSize, outFeatures: 2 * intermediateSize, bytes: gateUp.bytes });
    work?.addExperts(router, { inFeatures: intermediateSize, outFeatures: hiddenSize, bytes: down.bytes });
    work?.addActivation(topK * 2 * intermediateSize, topK * intermediateSize);
  }

  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, numTokens: number): void {
    const { shared, activation, intermediateSize } = this.options;
    const { hiddenSize, numExperts, topK } = this.options.router;
    const { ops } = this.device;
    const numRows = numTokens * topK;
    const { ids, weights } = this.router;
    this.router.forward(x, numTokens);
    shared?.forward(x, this.sharedOut.ptr, numTokens);

    const { expertOffsets, rowOfPair, tokenOfRow, rows } = this;
    ops.moe_permute(ids.ptr, expertOffsets.ptr, rowOfPair.ptr, tokenOfRow.ptr, numTokens, topK, numExperts);
    ops.gather_rows(x, tokenOfRow.ptr, rows.ptr, numRows, hiddenSize);
    this.gateUpProj.apply(rows.ptr, this.gateUp.ptr, expertOffsets.ptr, numRows);
    activation(this.device, this.gateUp.ptr, this.activated.ptr, numRows, intermediateSize);
    this.downProj.apply(this.activated.ptr, rows.ptr, expertOffsets.ptr, numRows);
    ops.moe_combine(rows.ptr, rowOfPair.ptr, weights.ptr, out, numTokens, topK, hiddenSize);
    if (shared !== null) ops.add(out, this.sharedOut.ptr, out, numTokens * hiddenSize);
  }
}

function loadExperts({ device, dtype, linearMethod }: LayerContext, spec: ExpertLinearSpec): GroupedLinearKernel {
  if (linearMethod.loadExperts === undefined) {
    throw new Error(`The weights of experts can't be kept as "${linearMethod.name}"; leave the quantization out.`);
  }
  return linearMethod.loadExperts(device, dtype, spec);
}
