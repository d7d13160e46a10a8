import type { Device } from '../device/device.ts';
import type { FloatDType } from '../device/dtype.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import type { LinearAdapters } from './linear-adapters.ts';
import type { LinearMethod } from './linear-method.ts';
import type { ModelWork } from './model-work.ts';
import type { Workspace } from './workspace.ts';

/** This process's share of a model that is split over `size` devices. */
export interface TensorParallel {
  rank: number;
  size: number;
}

/** What every layer is built from. */
export interface LayerContext {
  readonly device: Device;
  readonly weights: WeightSource;
  /** Type that weights are kept in. */
  readonly dtype: FloatDType;
  readonly linearMethod: LinearMethod;
  readonly tensorParallel: TensorParallel;
  readonly workspace: Workspace;
  /** Absent or null: no layer is ever changed by an adapter. */
  readonly adapters?: LinearAdapters | null;
  /** Where layers tell what computing them takes; absent: nobody asks. */
  readonly work?: ModelWork;
}

/** `total / size`. Throws when a dimension can't be split evenly; `what` names it. */
export function splitEvenly(total: number, tensorParallel: TensorParallel, what: string): number {
  if (total % tensorParallel.size !== 0) {
    throw new Error(
      `${what} is ${total}; expected a multiple of the tensor parallel size, which is ${tensorParallel.size}.`,
    );
  }
  return total / tensorParallel.size;
}
