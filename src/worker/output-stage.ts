import type { DevicePtr } from '../device/device.ts';
import type { ModelRunnerOutput, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import type { StepInputs, StepRow } from './step-inputs.ts';

/** A step before its forward pass. */
export interface ScheduledStep {
  rows: readonly StepRow[];
  scheduled: SchedulerOutput;
  inputs: StepInputs;
  /** Sequences that the step is filled up to, so that it can be replayed; null: it can't. */
  replaySize: number | null;
}

/** What becomes of a step's hidden states: tokens, or pooled vectors. */
export interface OutputStage {
  /** Enqueues the upload of what it needs for a step. */
  begin(step: ScheduledStep): OutputStep;
  close(): void;
}

/** The stage's part of one step. `hidden` is act [numTokens, hiddenSize], until the next forward pass. */
export interface OutputStep {
  /** Enqueues ops and nothing else, right behind the forward pass: both are replayed together. Absent: there is nothing of that kind. */
  enqueueOps?(hidden: DevicePtr): void;
  /** Enqueues the rest; the result waits for the device and reads what came out. */
  finish(hidden: DevicePtr): () => ModelRunnerOutput;
}
