import type { Device, DevicePtr } from '../device/device.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { Model } from '../models/model.ts';
import { StepInputs, type StepShape } from './step-inputs.ts';
import type { TokenTable } from './token-table.ts';

/** One model's passes over flat batches. Two may be in flight, each with inputs of its own. */
export class ForwardPass {
  private readonly inputs: readonly [StepInputs, StepInputs];
  private readonly inputIds: DevicePtr;
  private count = 0;

  constructor(
    private readonly device: Device,
    private readonly model: Model,
    private readonly tokens: TokenTable,
    shape: StepShape,
  ) {
    this.inputs = [new StepInputs(device, shape), new StepInputs(device, shape)];
    this.inputIds = device.alloc(shape.maxNumTokens * 4, 'step inputs');
  }

  /** Inputs for the next pass; waits for the pass that had them. They are in use until what `end` records. */
  begin(): StepInputs {
    const inputs = this.inputs[this.count++ % 2]!;
    if (inputs.inUseUntil !== null) this.device.wait(inputs.inUseUntil);
    return inputs;
  }

  /** Enqueues the pass, ops and nothing else. Gives the hidden states, act [numTokens, hiddenSize]. */
  enqueue({ tokenSlots, tokenPositions }: StepInputs, context: ForwardContext): DevicePtr {
    const { tokens, inputIds } = this;
    const { numTokens } = context;
    this.device.ops.gather_token_ids(tokens.ptr, tokens.ld, tokenSlots, tokenPositions, inputIds, numTokens);
    return this.model.forward(inputIds, context);
  }

  /** Everything that reads the pass's inputs is enqueued. */
  end(inputs: StepInputs): void {
    inputs.inUseUntil = this.device.record();
  }

  free(): void {
    for (const inputs of this.inputs) inputs.free();
    this.device.free(this.inputIds);
  }
}
