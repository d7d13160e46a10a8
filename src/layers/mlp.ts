import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import { type LayerContext, splitEvenly } from './layer-context.ts';
import { MergedColumnParallelLinear, type OutputSource, RowParallelLinear } from './linear.ts';
import type { WorkspaceBuffer } from './workspace.ts';

/** Codes of `act_and_mul` by transformers' names. */
const ACTIVATION_KINDS: Readonly<Record<string, number>> = {
  silu: 0,
  swish: 0,
  gelu_pytorch_tanh: 1,
  gelu_new: 1,
  gelu: 2,
};

/** Code of a gated activation. Throws an Error that lists the known names. */
export function activationKind(name: string): number {
  const kind = ACTIVATION_KINDS[name];
  if (kind === undefined) {
    throw new Error(`hidden_act is "${name}"; known activations: ${Object.keys(ACTIVATION_KINDS).join(', ')}.`);
  }
  return kind;
}

/** Enqueues act out[rows, n] from act gateUp[rows, 2n], gates first. */
export type GatedActivation = (device: Device, gateUp: DevicePtr, out: DevicePtr, rows: number, n: number) => void;

/** act(gate) * up by transformers' name of the activation. */
export function gatedActivation(name: string): GatedActivation {
  const kind = activationKind(name);
  return (device, gateUp, out, rows, n) => device.ops.act_and_mul(gateUp, out, rows, n, kind);
}

/** The second half of a decoder layer. */
export interface FeedForward {
  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, numTokens: number): void;
}

export interface GatedMLPOptions {
  hiddenSize: number;
  intermediateSize: number;
  hiddenAct: string;
  bias: boolean;
  /** Of gate and up, in this order. */
  gateUp: readonly OutputSource[];
  /** Module name of the down projection. */
  down: string;
  maxNumTokens: number;
}

/** down(act(gate(x)) * up(x)), gate and up in one product. */
export class GatedMLP implements FeedForward {
  private readonly device: Device;
  private readonly gateUpProj: MergedColumnParallelLinear;
  private readonly downProj: RowParallelLinear;
  private readonly activation: GatedActivation;
  private readonly intermediateSize: number;
  private readonly gateUp: WorkspaceBuffer;
  private readonly activated: WorkspaceBuffer;

  constructor(context: LayerContext, options: GatedMLPOptions) {
    this.device = context.device;
    this.activation = gatedActivation(options.hiddenAct);
    this.intermediateSize = splitEvenly(options.intermediateSize, context.tensorParallel, 'intermediate_size');
    this.gateUpProj = new MergedColumnParallelLinear(context, options.gateUp, options.hiddenSize, options.bias);
    this.downProj = new RowParallelLinear(
      context,
      options.down,
      options.intermediateSize,
      options.hiddenSize,
      options.bias,
    );
    context.work?.addActivation(2 * this.intermediateSize, this.intermediateSize);
    const bytes = options.maxNumTokens * this.intermediateSize * dtypeBytes(context.device.activationDtype);
    this.gateUp = context.workspace.scratch('mlp', 'gate_up', 2 * bytes);
    this.activated = context.workspace.scratch('mlp', 'activated', bytes);
  }

  /** act x [numTokens, hiddenSize] to out of the same shape; out may be x. */
  forward(x: DevicePtr, out: DevicePtr, numTokens: number): void {
    this.gateUpProj.forward(x, this.gateUp.ptr, numTokens);
    this.activation(this.device, this.gateUp.ptr, this.activated.ptr, numTokens, this.intermediateSize);
    this.downProj.forward(this.activated.ptr, out, numTokens);
  }
}
