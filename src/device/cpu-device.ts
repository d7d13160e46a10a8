import { type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import { CpuCommandLists } from './cpu-command-lists.ts';
import { type CpuIsa, type CpuLibrary, describeCpu, ISA_CODES, openCpuLibrary } from './cpu-library.ts';
import { availableThreads, systemMemory } from './cpu-resources.ts';
import {
  type Device,
  type DeviceEvent,
  type DevicePtr,
  type MatrixSource,
  type Ops,
  OutOfMemoryError,
  type PackedLinear,
  type QuantizableSource,
  type QuantizedLinear,
  type StagingBuffer,
} from './device.ts';
import { DTYPE_CODES, type DType, type FloatDType } from './dtype.ts';
import { bindOps, checkedOps, refuse } from './kernel-calls.ts';
import { checkQuantizable } from './quantizable-source.ts';
import { QUANTIZATION_CODES, type QuantizationScheme } from './quantization-scheme.ts';
import { StepRecordings } from './step-recordings.ts';

export interface CpuDeviceOptions {
  /** The kernel library (see scripts/build-cpu.ts). */
  libraryPath: string;
  /** Threads that work on the stream, the waiting caller among them. Default: `availableThreads()`. */
  threads?: number;
  /** By thread: the processors that it is bound to. Default: the system moves threads. */
  processors?: readonly (readonly number[])[];
  /** Highest instruction set to use. Default: the one that is fastest here. */
  isa?: CpuIsa;
  /** Check pointers and integers of every op. Default: whether BAO_DEBUG_KERNELS is 1. */
  debug?: boolean;
}

interface Allocation {
  bytes: number;
  purpose: string;
}

/** More sequences compute so long that it makes no difference how they are enqueued, and have so many sizes that few steps come again. */
const MAX_REPLAYED_SEQS = 8;
/** Two sets of step inputs take turns, and block tables widen as sequences grow; a list has some 300 bytes an op. */
const MAX_COMMAND_LISTS = 8 * MAX_REPLAYED_SEQS;

const ISA_NAMES = Object.keys(ISA_CODES) as CpuIsa[];

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/** The host's processor and memory. One thread at a time may use it. */
export class CpuDevice implements Device {
  readonly type = 'cpu';
  readonly activationDtype = 'float32';
  readonly threads: number;
  readonly isa: CpuIsa;
  readonly description: string;
  readonly ops: Ops;

  readonly #library: CpuLibrary;
  readonly #steps: StepRecordings<number>;
  readonly #stream: number;
  readonly #allocations = new Map<DevicePtr, Allocation>();
  #closed = false;

  constructor(options: CpuDeviceOptions) {
    this.threads = options.threads ?? availableThreads();
    this.#library = openCpuLibrary(options.libraryPath);
    this.#stream = this.#library.bao_stream_create(this.threads, options.isa ? ISA_CODES[options.isa] : -1);
    if (!this.#stream)
      throw new Error(
        `a stream of ${this.threads} threads (from 1 to 4096 are possible) with ${options.isa ?? 'this processor'}'s kernels can't be had from ${options.libraryPath}`,
      );
    options.processors?.forEach((processors, thread) => {
      this.#bind(thread, processors);
    });
    this.isa = ISA_NAMES[this.#library.bao_stream_isa(this.#stream)]!;
    this.description = describeCpu(this.threads, this.isa);
    const ops = bindOps(this.#library.ops, this.#stream);
    const debug = options.debug ?? process.env.BAO_DEBUG_KERNELS === '1';
    const checked = debug ? checkedOps(ops, (address) => this.#bytesFrom(address)) : ops;
    // What is checked is each call.
    const lists = new CpuCommandLists(this.#library, this.#stream);
    this.#steps = new StepRecordings(checked, lists, debug ? 0 : MAX_COMMAND_LISTS);
    this.ops = this.#steps.ops;
  }

  /** Throws an Error with the purpose where the memory can't be had. */
  alloc(bytes: number, purpose: string): DevicePtr {
    const ptr = Number.isSafeInteger(bytes) && bytes > 0 ? this.#library.bao_memory_alloc(bytes) : 0;
    if (!ptr) throw outOfMemory(bytes, purpose);
    this.#allocations.set(ptr, { bytes, purpose });
    return ptr;
  }

  /** Waits for the stream first: enqueued ops may still use the memory. */
  free(ptr: DevicePtr): void {
    if (!this.#allocations.delete(ptr))
      throw new Error(`free of ${ptr}, which was not allocated here or is freed already`);
    this.wait(this.record());
    this.#library.bao_memory_free(ptr);
  }

  /** The host's view is the device's memory itself. It must not be touched after `free`. */
  staging(bytes: number, purpose: string): StagingBuffer {
    const ptr = this.alloc(bytes, purpose);
    const host = this.#hostView(ptr, bytes, purpose);
    return { ptr, byteLength: bytes, host, upload() {}, download() {}, free: () => this.free(ptr) };
  }

  /** Reads the sources before it returns. */
  packLinear(sources: readonly MatrixSource[], dtype: FloatDType, purpose: string): PackedLinear {
    const n = sources.reduce((rows, source) => rows + source.rows, 0);
    const k = sources[0]?.cols ?? 0;
    const bytes = this.#library.bao_packed_linear_bytes(this.#stream, n, k, DTYPE_CODES[dtype]);
    if (bytes < 0 || sources.some((source) => source.cols !== k)) {
      const shapes = sources.map((source) => `[${source.rows}, ${source.cols}]`);
      throw new Error(`${purpose}: can't pack ${shapes.join(', ') || 'nothing'} as ${dtype}`);
    }
    const ptr = this.alloc(bytes, purpose);
    let offset = 0;
    for (const source of sources) {
      const { ptr: from, rows, cols, ld } = source;
      const fromType = DTYPE_CODES[source.dtype];
      const toType = DTYPE_CODES[dtype];
      const code = this.#library.bao_pack_linear(this.#stream, from, fromType, rows, cols, ld, offset, ptr, toType);
      if (code !== 0) refuse('pack_linear', code, { from, fromType, rows, cols, ld, offset, ptr, toType });
      offset += rows;
    }
    this.wait(this.record());
    return { ptr, dtype, n, k, bytes };
  }

  /** Reads the sources before it returns. */
  packQuantizedLinear(
    sources: readonly QuantizableSource[],
    scheme: QuantizationScheme,
    purpose: string,
  ): QuantizedLinear {
    const { n, k } = checkQuantizable(sources, scheme, purpose);
    const code = QUANTIZATION_CODES[scheme];
    const bytes = this.#library.bao_quantized_linear_bytes(n, k, code);
    const ptr = this.alloc(bytes, purpose);
    let offset = 0;
    for (const source of sources) {
      this.#quantize(source, offset, ptr, code);
      offset += source.rows;
    }
    this.wait(this.record());
    return { ptr, scheme, n, k, bytes };
  }

  #bind(thread: number, processors: readonly number[]): void {
    const numbers = Int32Array.from(processors);
    if (this.#library.bao_stream_bind(this.#stream, thread, ptr(numbers), numbers.length) === 0) return;
    this.#library.bao_stream_destroy(this.#stream);
    throw new Error(`thread ${thread} can't be bound to processors ${processors.join(', ')} on this system`);
  }

  #quantize(source: QuantizableSource, offset: number, to: DevicePtr, scheme: number): void {
    const { ptr: from, rows, cols, ld } = source;
    const library = this.#library;
    if (source.dtype === 'fp8_e4m3') {
      const scales = ptr(source.scales);
      const code = library.bao_pack_fp8_linear(this.#stream, from, scales, rows, cols, ld, offset, to);
      if (code !== 0) refuse('pack_fp8_linear', code, { from, scales, rows, cols, ld, offset, to });
      // The scales are the caller's only as long as this runs.
      this.wait(this.record());
      return;
    }
    const fromType = DTYPE_CODES[source.dtype];
    const code = library.bao_quantize_linear(this.#stream, from, fromType, rows, cols, ld, offset, to, scheme);
    if (code !== 0) refuse('quantize_linear', code, { from, fromType, rows, cols, ld, offset, to, scheme });
  }

  uploadVector(values: Float32Array, purpose: string): DevicePtr {
    const ptr = this.alloc(Math.max(4, values.byteLength), purpose);
    new Float32Array(toArrayBuffer(ptr as Pointer, 0, values.byteLength)).set(values);
    return ptr;
  }

  kvBlockBytes(numKvHeads: number, headDim: number, blockSize: number, dtype: DType): number {
    const bytes = this.#library.bao_kv_block_bytes(numKvHeads, headDim, blockSize, DTYPE_CODES[dtype]);
    if (bytes > 0) return bytes;
    throw new Error(
      `no KV cache of ${numKvHeads} heads of ${headDim} in blocks of ${blockSize} as ${dtype}: head sizes go up to 256, types are float32, bfloat16, float16 and fp8_e4m3`,
    );
  }

  /** Steps are not filled up: what is computed costs more than what is enqueued. */
  replaySize(numSeqs: number): number | null {
    return numSeqs <= MAX_REPLAYED_SEQS ? numSeqs : null;
  }

  replayable<Result>(enqueue: () => Result): Result {
    return this.#steps.run(enqueue);
  }

  forgetReplays(): void {
    this.#steps.clear();
  }

  rehearse(): void {}

  memoryInfo(): { freeBytes: number; totalBytes: number } {
    return systemMemory();
  }

  memoryReport(): Record<string, number> {
    const report: Record<string, number> = {};
    for (const { bytes, purpose } of this.#allocations.values()) report[purpose] = (report[purpose] ?? 0) + bytes;
    return report;
  }

  record(): DeviceEvent {
    return this.#library.bao_stream_record(this.#stream);
  }

  query(event: DeviceEvent): boolean {
    return this.#library.bao_stream_query(this.#stream, event) !== 0;
  }

  wait(event: DeviceEvent): void {
    this.#library.bao_stream_wait(this.#stream, event);
  }

  /** Finishes the stream's work and frees all memory. The library stays loaded: other Workers may use it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#steps.clear();
    this.#library.bao_stream_destroy(this.#stream);
    for (const ptr of this.#allocations.keys()) this.#library.bao_memory_free(ptr);
    this.#allocations.clear();
  }

  /** A view has a limit of its own. */
  #hostView(ptr: DevicePtr, bytes: number, purpose: string): ArrayBuffer {
    try {
      return toArrayBuffer(ptr as Pointer, 0, bytes);
    } catch {
      this.free(ptr);
      throw outOfMemory(bytes, purpose);
    }
  }

  #bytesFrom(address: number): number {
    for (const [ptr, { bytes }] of this.#allocations) {
      if (address >= ptr && address < ptr + bytes) return ptr + bytes - address;
    }
    return 0;
  }
}

function outOfMemory(bytes: number, purpose: string): OutOfMemoryError {
  return new OutOfMemoryError(`can't allocate ${bytes} bytes (${gibibytes(bytes)}) for ${purpose}`);
}

/** Opens the CPU as a device. Throws an Error where the library can't be loaded. */
export function createCpuDevice(options: CpuDeviceOptions): CpuDevice {
  return new CpuDevice(options);
}
