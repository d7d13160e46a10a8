import type { DType, FloatDType } from './dtype.ts';
import type { OPS, OpName } from './ops.ts';
import type { QuantizationScheme } from './quantization-scheme.ts';

/** A device address. On the CPU an ordinary pointer. */
export type DevicePtr = number;

type ArgValues<N extends OpName> = { [K in keyof (typeof OPS)[N]['args']]: number };

/** The kernel table of one device: `ops.rms_norm(x, weight, out, rows, n, eps)`, arguments in the table's order, stream bound. Throws `KernelError`. */
export type Ops = { readonly [N in OpName]: (...args: number[]) => void };

/** Named arguments of an op, for tests and debug checks. */
export type OpArgs<N extends OpName> = ArgValues<N>;

/** Memory that the host writes or reads and the device sees: on CUDA pinned memory beside device memory, on the CPU the same bytes. */
export interface StagingBuffer {
  /** Address for kernels. */
  readonly ptr: DevicePtr;
  readonly byteLength: number;
  /** The host's view of the bytes. */
  readonly host: ArrayBuffer;
  /** Enqueues host → device of the first `bytes`. */
  upload(bytes?: number): void;
  /** Enqueues device → host of the first `bytes`; valid after the event recorded behind it. */
  download(bytes?: number): void;
  free(): void;
}

/** Rows of a checkpoint tensor as mapped from the file: row-major, `ld` elements between rows. */
export interface MatrixSource {
  readonly ptr: number;
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly cols: number;
  readonly ld: number;
}

/** Rows of a checkpoint tensor of 8-bit floats (E4M3): a weight is its number times its scale. */
export interface Fp8MatrixSource {
  readonly ptr: number;
  readonly dtype: 'fp8_e4m3';
  readonly rows: number;
  readonly cols: number;
  readonly ld: number;
  /** [rows, ceil(cols / FP8_GROUP)]: of each row's groups of columns. */
  readonly scales: Float32Array;
}

/** What a quantized weight may be made of. Numbers that are 8-bit floats already stay what they are. */
export type QuantizableSource = MatrixSource | Fp8MatrixSource;

/** A weight in the kernels' own layout; only `linear` sees inside. */
export interface PackedLinear {
  readonly ptr: DevicePtr;
  readonly dtype: DType;
  /** Output features. */
  readonly n: number;
  /** Input features. */
  readonly k: number;
  readonly bytes: number;
}

/** A quantized weight in the kernels' own layout; only `quantized_linear` sees inside. */
export interface QuantizedLinear {
  readonly ptr: DevicePtr;
  readonly scheme: QuantizationScheme;
  /** Output features. */
  readonly n: number;
  /** Input features. */
  readonly k: number;
  readonly bytes: number;
}

/** A point in the stream. */
export type DeviceEvent = number;

/**
 * One device with one stream. Nothing above `device/` knows which one it is.
 * Ops and copies are enqueued and run in order while the host goes on; `wait(record())` waits for all that was enqueued before.
 */
export interface Device {
  readonly type: 'cpu' | 'cuda' | 'cuda-emulation';
  /** For logs: "CPU, 2 threads, AVX2" or "NVIDIA H100 80GB". */
  readonly description: string;
  /** Type of hidden states and of every `act` argument. */
  readonly activationDtype: FloatDType;
  readonly ops: Ops;

  /** Zero-filled memory (lazily backed on the CPU). `purpose` is for the memory report and for the error text. Throws an OutOfMemoryError. */
  alloc(bytes: number, purpose: string): DevicePtr;
  free(ptr: DevicePtr): void;
  /** Zero-filled. Throws an OutOfMemoryError. */
  staging(bytes: number, purpose: string): StagingBuffer;

  /** Concatenates the sources' rows into one packed weight of `dtype`. All sources have the same number of columns. */
  packLinear(sources: readonly MatrixSource[], dtype: FloatDType, purpose: string): PackedLinear;
  /** The same, quantized on the way. 8-bit floats can only become a weight of `fp8`. */
  packQuantizedLinear(
    sources: readonly QuantizableSource[],
    scheme: QuantizationScheme,
    purpose: string,
  ): QuantizedLinear;
  /** A vector as float32: norm weights, biases, rope tables. */
  uploadVector(values: Float32Array, purpose: string): DevicePtr;

  /** Bytes of one KV block (keys and values) of one layer. */
  kvBlockBytes(numKvHeads: number, headDim: number, blockSize: number, dtype: DType): number;

  /** How many sequences a step of `numSeqs` sequences with one token each is filled up to, so that it can be replayed; null: nothing is gained by it. */
  replaySize(numSeqs: number): number | null;
  /**
   * Runs `enqueue`, which uses nothing of the device but ops. Where the same ops with the same arguments were enqueued in this way before, the
   * device may launch them as one. Results are the same bits either way.
   */
  replayable<Result>(enqueue: () => Result): Result;

  /** Gives up what is kept of steps to replay them, once those are done. */
  forgetReplays(): void;
  /**
   * Takes the memory that the ops which `enqueue` calls need beside their arguments, and runs none of them: a step of those sizes then takes none.
   * On the CPU ops need none.
   */
  rehearse(enqueue: () => void): void;

  /** Bytes that may still be allocated, and all there are. */
  memoryInfo(): { freeBytes: number; totalBytes: number };
  /** Bytes allocated so far, by purpose. */
  memoryReport(): Record<string, number>;

  record(): DeviceEvent;
  /** True when the event's work is done; never blocks. */
  query(event: DeviceEvent): boolean;
  /** Waits; on the CPU the calling thread helps with the work. */
  wait(event: DeviceEvent): void;
  close(): void;
}

/** Memory that can't be had; the device goes on. */
export class OutOfMemoryError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'OutOfMemoryError';
  }
}

/** A native call that refused its arguments. */
export class KernelError extends Error {
  constructor(
    readonly op: string,
    readonly code: number,
    message: string,
  ) {
    super(message);
    this.name = 'KernelError';
  }
}
