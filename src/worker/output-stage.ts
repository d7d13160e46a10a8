import type { DevicePtr } from '../device/device.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { StepInputs, StepRow } from './step-inputs.ts';

/** A step whose forward pass has been enqueued. */
export interface ForwardResult {
  rows: readonly StepRow[];
  scheduled: SchedulerOutput;
  inputs: StepInputs;
  /** act [numTokens, hiddenSize], until the next forward pass. */
  hidden: DevicePtr;
}

/** i32 [maxNumSeqs, ld]: see ModelRunner. */
export interface TokenTable {
  ptr: DevicePtr;
  ld: number;
}

/** What becomes of a step's hidden states: tokens, or pooled vectors. */
export interface OutputStage {
  /** Enqueues it; the result waits for the device and reads what came out. */
  enqueue(forward: ForwardResult): () => ModelRunnerOutput;
  close(): void;
}
