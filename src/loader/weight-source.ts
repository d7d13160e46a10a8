import type { FloatDType } from '../device/dtype.ts';

/** A checkpoint's tensor where it lies in memory (mapped from the file, or made up for `--load-format dummy`). Row-major. */
export interface TensorView {
  readonly name: string;
  readonly dtype: FloatDType;
  readonly shape: readonly number[];
  /** Address of the first element; valid until the source is closed. */
  readonly ptr: number;
}

/** A tensor of 8-bit floats where it lies in memory, row-major. What they are to be multiplied with is another tensor. */
export interface Fp8View {
  /** Address of the first element; valid until the source is closed. */
  readonly ptr: number;
}

/** The weights of one checkpoint, by name. */
export interface WeightSource {
  has(name: string): boolean;
  /** Throws an Error that names the missing tensor and the file. `shape`, where given, is checked: the error names both. */
  get(name: string, shape?: readonly number[]): TensorView;
  /** A tensor of 8-bit floats (E4M3); null where it has another type. Throws as `get` does. Absent where a source never has any. */
  getFp8?(name: string, shape: readonly number[]): Fp8View | null;
  /** Sorted; for errors and for the check that nothing was left unread. */
  names(): string[];
  readonly totalBytes: number;
  /** Unmaps. Views are invalid from here on. */
  close(): void;
}
