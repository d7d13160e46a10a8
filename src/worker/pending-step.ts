import type { ModelRunnerOutput } from '../scheduler/scheduler-output.ts';

/** A step that has been enqueued on the device. */
export interface PendingStep {
  /** Waits for the device and reads the results. Called once, in the order of the steps. */
  wait(): ModelRunnerOutput;
}
