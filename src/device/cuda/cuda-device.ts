import { type Pointer, toArrayBuffer } from 'bun:ffi';
import type { CudaLibraries } from '../../../scripts/build-cuda.ts';
import type {
  Device,
  DeviceEvent,
  DevicePtr,
  Fp8MatrixSource,
  MatrixSource,
  Ops,
  PackedLinear,
  QuantizableSource,
  QuantizedLinear,
  StagingBuffer,
} from '../device.ts';
import { DTYPE_CODES, type DType, dtypeBytes, type FloatDType } from '../dtype.ts';
import { bindOps, checkedOps, refuse } from '../kernel-calls.ts';
import { ERROR_TEXT } from '../ops.ts';
import { checkQuantizable } from '../quantizable-source.ts';
import { FP8_GROUP, QUANTIZATION_CODES, type QuantizationScheme } from '../quantization-scheme.ts';
import { freeAfter, freeOnFailure } from '../release.ts';
import { uploadBytes } from '../upload-bytes.ts';
import { Cublas } from './cublas.ts';
import { CublasLt } from './cublas-lt.ts';
import { type CudaKernels, KERNEL_CUDA_ERROR, openCudaKernels } from './cuda-kernels.ts';
import { CudaMemory } from './cuda-memory.ts';
import { CUDART_CONSTANTS, CudaRuntime, type SelectedDevice } from './cuda-runtime.ts';
import { MatrixProducts } from './matrix-products.ts';
import { opTable, throwingOps } from './op-table.ts';
import { StepGraphs } from './step-graphs.ts';
import { StreamEvents } from './stream-events.ts';

export interface CudaDeviceOptions {
  type: 'cuda' | 'cuda-emulation';
  /** Device of this thread, of those that the driver shows. */
  index: number;
  /** Type of hidden states and weights. */
  activationDtype: FloatDType;
  /** See DeviceOptions. */
  replaySizes: readonly number[];
  cudart: CudaLibraries['cudart'];
  cublas: CudaLibraries['cublas'];
  cublasLt: CudaLibraries['cublasLt'];
  /** Path of libbao-cuda for a compute capability ("90"). */
  kernels: (computeCapability: string) => Promise<string>;
  /** Check pointers and integers of every op. */
  debug: boolean;
  /** See CudaMemory. */
  exactMemory?: boolean;
}

/** What NVIDIA recommends for Hopper; half of it would do before. */
const CUBLAS_WORKSPACE_BYTES = 32 << 20;
const EMULATED_CUBLAS_WORKSPACE_BYTES = 1 << 20;
/** Room for the partial results of attention whose keys are split over blocks: with heads of 128 a sequence of 128k tokens takes 2.2 MiB for each key head, of a group of up to 16. Other ops make it grow. */
const MIN_WORKSPACE_BYTES = 64 << 20;
const EMULATED_MIN_WORKSPACE_BYTES = 4 << 20;
/** From here on a kernel may be started while the one before it still runs (programmatic dependent launch). */
const EARLY_START_CAPABILITY = 90;
/** Two sets of step inputs take turns, and block tables widen as sequences grow. */
const GRAPHS_PER_SIZE = 4;
/** Of a vector without elements. */
const EMPTY_VECTOR = new Uint8Array(4);
/** Part of a weight that is on the device in its checkpoint's type while it is converted. */
const UPLOAD_CHUNK_BYTES = 64 << 20;

/** A CUDA device with one stream, for the thread that opened it. After a CudaError it can only be closed. */
export class CudaDevice implements Device {
  readonly type: 'cuda' | 'cuda-emulation';
  readonly description: string;
  readonly activationDtype: FloatDType;
  ops: Ops;

  readonly #runtime: CudaRuntime;
  readonly #kernels: CudaKernels;
  readonly #products: MatrixProducts;
  readonly #stream: number;
  /** The kernels' handle of the stream. */
  readonly #handle: number;
  readonly #events: StreamEvents;
  readonly #memory: CudaMemory;
  readonly #replaySizes: readonly number[];
  readonly #graphs: StepGraphs;
  /** See `rehearse`. */
  readonly #reservations: Ops;
  #workspace: { ptr: DevicePtr; bytes: number } = { ptr: 0, bytes: 0 };
  #closed = false;

  /** Throws a NoCudaDeviceError where libraries or devices are missing. */
  static async open(options: CudaDeviceOptions): Promise<CudaDevice> {
    const runtime = new CudaRuntime(options.cudart);
    const selected = runtime.selectDevice(options.index);
    return new CudaDevice(options, runtime, selected, await options.kernels(selected.computeCapability));
  }

  private constructor(options: CudaDeviceOptions, runtime: CudaRuntime, selected: SelectedDevice, kernelsPath: string) {
    const { type, index, activationDtype } = options;
    const { numMultiprocessors, computeCapability } = selected;
    this.type = type;
    this.activationDtype = activationDtype;
    const name = type === 'cuda' ? 'CUDA device' : 'CUDA emulation';
    this.description = `${name} ${index}, sm_${computeCapability}, ${numMultiprocessors} multiprocessors, ${activationDtype}`;
    this.#runtime = runtime;
    this.#kernels = openCudaKernels(kernelsPath);
    this.#stream = runtime.createStream();
    this.#events = new StreamEvents(runtime, this.#stream);
    this.#memory = new CudaMemory(runtime, this.#stream, this.#events, options.exactMemory ?? false);
    const earlyStart = Number(computeCapability) >= EARLY_START_CAPABILITY && process.env.BAO_CUDA_EARLY_START !== '0';
    this.#handle = this.#kernels.bao_stream_create(
      this.#stream,
      DTYPE_CODES[activationDtype],
      numMultiprocessors,
      earlyStart ? 1 : 0,
    );
    const bytes = type === 'cuda' ? CUBLAS_WORKSPACE_BYTES : EMULATED_CUBLAS_WORKSPACE_BYTES;
    // One for both: they take turns on the stream.
    const workspace = { ptr: this.alloc(bytes, 'cuBLAS workspace'), bytes };
    this.#products = new MatrixProducts({
      kernels: this.#kernels,
      handle: this.#handle,
      cublas: new Cublas(options.cublas, this.#stream, workspace),
      cublasLt: new CublasLt(options.cublasLt, this.#stream, workspace),
      activationDtype,
      alloc: (size, purpose) => this.alloc(size, purpose),
      free: (address) => this.#memory.free(address),
      workspace: (size) => {
        this.#reserveWorkspace(size);
        return this.#workspace.ptr;
      },
      errorText: (code) => this.#errorText(code),
    });
    const { functions, reservations } = opTable({
      kernels: this.#kernels,
      products: this.#products,
      activationDtype,
      reserveWorkspace: (size) => this.#reserveWorkspace(size),
    });
    this.#reservations = reservations;
    const ops = bindOps(functions, this.#handle, (code) => this.#errorText(code));
    const checked = options.debug ? checkedOps(ops, (address) => this.#memory.bytesFrom(address)) : ops;
    this.#replaySizes = options.replaySizes;
    this.#graphs = new StepGraphs(runtime, this.#stream, checked, GRAPHS_PER_SIZE * this.#replaySizes.length);
    this.ops = this.#graphs.ops;
    this.#memory.giveBack = () => this.#graphs.giveUp();
    this.#reserveWorkspace(type === 'cuda' ? MIN_WORKSPACE_BYTES : EMULATED_MIN_WORKSPACE_BYTES);
  }

  alloc(bytes: number, purpose: string): DevicePtr {
    return this.#memory.alloc(bytes, purpose);
  }

  free(ptr: DevicePtr): void {
    if (this.#products.forgetVector(ptr)) this.forgetReplays();
    this.#memory.free(ptr);
  }

  staging(bytes: number, purpose: string): StagingBuffer {
    const pair = this.#memory.allocStaging(bytes, purpose);
    const { cudaMemcpyAsync } = this.#runtime.functions;
    const { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost } = CUDART_CONSTANTS;
    const copy = (to: number, from: number, count: number, kind: number) =>
      this.#runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(to, from, count, kind, this.#stream));
    return {
      ptr: pair.device,
      byteLength: bytes,
      host: toArrayBuffer(pair.host as Pointer, 0, bytes),
      upload: (count = bytes) => copy(pair.device, pair.host, count, cudaMemcpyHostToDevice),
      download: (count = bytes) => copy(pair.host, pair.device, count, cudaMemcpyDeviceToHost),
      free: () => this.#memory.freeStaging(pair),
    };
  }

  /** Row-major in the activation type, which is what cuBLAS multiplies with; in float32 where that is asked for. */
  packLinear(sources: readonly MatrixSource[], asked: FloatDType, purpose: string): PackedLinear {
    const dtype = asked === 'float32' ? asked : this.activationDtype;
    const n = sources.reduce((rows, source) => rows + source.rows, 0);
    const k = sources[0]?.cols ?? 0;
    if (n <= 0 || k <= 0 || sources.some((source) => source.cols !== k)) {
      const shapes = sources.map((source) => `[${source.rows}, ${source.cols}]`);
      throw new Error(`${purpose}: can't pack ${shapes.join(', ') || 'nothing'} as ${dtype}`);
    }
    const bytes = n * k * dtypeBytes(dtype);
    const ptr = this.#allocFilled(bytes, purpose, (begin) => {
      let at = begin;
      for (const source of sources) {
        this.#convert(source, at, dtype);
        at += source.rows * k * dtypeBytes(dtype);
      }
    });
    return { ptr, dtype, n, k, bytes };
  }

  packQuantizedLinear(
    sources: readonly QuantizableSource[],
    scheme: QuantizationScheme,
    purpose: string,
  ): QuantizedLinear {
    const { n, k } = checkQuantizable(sources, scheme, purpose);
    const code = QUANTIZATION_CODES[scheme];
    const bytes = this.#kernels.bao_quantized_linear_bytes(n, k, code);
    const ptr = this.#allocFilled(bytes, purpose, (to) => {
      let firstRow = 0;
      for (const source of sources) {
        if (source.dtype === 'fp8_e4m3') this.#packFp8(source, firstRow, to);
        else this.#quantize(source, firstRow, to, code);
        firstRow += source.rows;
      }
    });
    return { ptr, scheme, n, k, bytes };
  }

  #quantize(source: MatrixSource, firstRow: number, to: DevicePtr, scheme: number): void {
    const { cols, ld } = source;
    const fromType = DTYPE_CODES[source.dtype];
    this.#uploadRows(source, 'quantize_linear', (raw, first, rows) =>
      this.#kernels.bao_quantize_linear(this.#handle, raw, fromType, rows, cols, ld, firstRow + first, to, scheme),
    );
  }

  #packFp8(source: Fp8MatrixSource, firstRow: number, to: DevicePtr): void {
    const { cols, ld, scales } = source;
    const staged = this.staging(scales.byteLength, 'upload');
    freeAfter(staged.free, () => {
      new Float32Array(staged.host).set(scales);
      staged.upload();
      const rowScales = Math.ceil(cols / FP8_GROUP) * Float32Array.BYTES_PER_ELEMENT;
      this.#uploadRows(source, 'pack_fp8_linear', (raw, first, rows) => {
        const at = staged.ptr + first * rowScales;
        return this.#kernels.bao_pack_fp8_linear(this.#handle, raw, at, rows, cols, ld, firstRow + first, to);
      });
    });
  }

  uploadVector(values: Float32Array, purpose: string): DevicePtr {
    const bytes =
      values.length > 0 ? new Uint8Array(values.buffer, values.byteOffset, values.byteLength) : EMPTY_VECTOR;
    const address = uploadBytes(this, bytes, purpose);
    this.#products.addVector(address, values.length);
    return address;
  }

  kvBlockBytes(numKvHeads: number, headDim: number, blockSize: number, dtype: DType): number {
    const bytes = this.#kernels.bao_kv_block_bytes(numKvHeads, headDim, blockSize, DTYPE_CODES[dtype]);
    if (bytes > 0) return bytes;
    throw new Error(
      `no KV cache of ${numKvHeads} heads of ${headDim} in blocks of ${blockSize} as ${dtype}: head sizes go up to 256, types are float32, bfloat16, float16 and fp8_e4m3`,
    );
  }

  memoryInfo(): { freeBytes: number; totalBytes: number } {
    return this.#memory.info();
  }

  /** Graphs are the driver's memory: what was free before they were made, less what was free then. */
  memoryReport(): Record<string, number> {
    const { bytes } = this.#graphs;
    return bytes > 0 ? { ...this.#memory.report(), 'CUDA graphs': bytes } : this.#memory.report();
  }

  replaySize(numSeqs: number): number | null {
    return this.#replaySizes.find((size) => size >= numSeqs) ?? null;
  }

  replayable<Result>(enqueue: () => Result): Result {
    return this.#graphs.run(enqueue);
  }

  forgetReplays(): void {
    this.wait(this.record());
    this.#graphs.clear();
  }

  rehearse(enqueue: () => void): void {
    const { ops } = this;
    this.ops = this.#reservations;
    try {
      enqueue();
    } finally {
      this.ops = ops;
    }
  }

  record(): DeviceEvent {
    return this.#events.record();
  }

  query(event: DeviceEvent): boolean {
    return this.#events.query(event);
  }

  wait(event: DeviceEvent): void {
    this.#events.wait(event);
  }

  /** For measurements: enqueues a read of `bytes` (a multiple of 16), whose words' sum is added to the u32 at `sum`. */
  probeRead(ptr: DevicePtr, bytes: number, sum: DevicePtr): void {
    const code = this.#kernels.bao_probe_read(this.#handle, ptr, bytes, sum);
    if (code !== 0) refuse('probe_read', code, { ptr, bytes, sum }, this.#errorText(code));
  }

  /** For measurements: enqueues that `bytes` become elements of bfloat16 or float16 of random signs and like size. */
  fillNoise(ptr: DevicePtr, bytes: number): void {
    const code = this.#kernels.bao_fill_noise(this.#handle, ptr, bytes);
    if (code !== 0) refuse('fill_noise', code, { ptr, bytes }, this.#errorText(code));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.ops = throwingOps((op) => `${op}: the device is closed`);
    this.#runtime.functions.cudaStreamSynchronize(this.#stream);
    this.#graphs.clear();
    this.#products.close();
    this.#events.close();
    this.#kernels.bao_stream_destroy(this.#handle);
    this.#memory.close();
    this.#runtime.functions.cudaStreamDestroy(this.#stream);
  }

  /** Memory that the op which is enqueued next may use. */
  #reserveWorkspace(bytes: number): void {
    if (bytes <= this.#workspace.bytes) return;
    // Graphs have the old one's address.
    this.forgetReplays();
    const { ptr: old } = this.#workspace;
    this.#setWorkspace(0, 0);
    if (old !== 0) this.free(old);
    this.#setWorkspace(this.alloc(bytes, 'workspace'), bytes);
  }

  #setWorkspace(ptr: DevicePtr, bytes: number): void {
    this.#workspace = { ptr, bytes };
    this.#kernels.bao_stream_set_workspace(this.#handle, ptr, bytes);
  }

  /** Memory that `fill` writes to. None is kept where it throws. */
  #allocFilled(bytes: number, purpose: string, fill: (ptr: DevicePtr) => void): DevicePtr {
    const ptr = this.alloc(bytes, purpose);
    freeOnFailure(
      () => this.free(ptr),
      () => fill(ptr),
    );
    return ptr;
  }

  #convert(source: MatrixSource, to: DevicePtr, dtype: FloatDType): void {
    const { rows, cols, ld } = source;
    if (source.dtype === dtype && ld === cols) {
      // As it is: the copy needs no place in between.
      this.#copyToDevice(to, source.ptr, rows * cols * dtypeBytes(dtype));
      this.wait(this.record());
      return;
    }
    const [fromType, toType] = [DTYPE_CODES[source.dtype], DTYPE_CODES[dtype]];
    this.#uploadRows(source, 'convert_matrix', (raw, first, count) => {
      const at = to + first * cols * dtypeBytes(dtype);
      return this.#kernels.bao_convert_matrix(this.#handle, raw, fromType, count, cols, ld, at, toType);
    });
  }

  #copyToDevice(to: DevicePtr, from: number, bytes: number): void {
    const { cudaMemcpyAsync } = this.#runtime.functions;
    const { cudaMemcpyHostToDevice } = CUDART_CONSTANTS;
    this.#runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, this.#stream));
  }

  /** Reads the source, in pieces, before it returns; `enqueue` does something with each piece on the device, and gives the kernel's code. */
  #uploadRows(
    source: QuantizableSource,
    op: string,
    enqueue: (raw: DevicePtr, firstRow: number, rows: number) => number,
  ): void {
    const { ptr: from, rows, cols, ld } = source;
    const rowBytes = ld * dtypeBytes(source.dtype);
    const chunkRows = Math.max(1, Math.floor(UPLOAD_CHUNK_BYTES / rowBytes));
    const raw = this.alloc(Math.min(rows, chunkRows) * rowBytes, 'upload');
    const uploadAll = () => {
      for (let first = 0; first < rows; first += chunkRows) {
        const count = Math.min(chunkRows, rows - first);
        // Behind the last row's columns the source may end.
        const bytes = ((count - 1) * ld + cols) * dtypeBytes(source.dtype);
        this.#copyToDevice(raw, from + first * rowBytes, bytes);
        const code = enqueue(raw, first, count);
        if (code !== 0) refuse(op, code, { first, count, cols, ld }, this.#errorText(code));
      }
    };
    freeAfter(() => this.free(raw), uploadAll);
    // Weights are there for good when this returns: kernels may read them before the ones that run have ended.
    this.wait(this.record());
  }

  #errorText(code: number): string | undefined {
    if (code < KERNEL_CUDA_ERROR) return ERROR_TEXT[code];
    return this.#runtime.error('launch', code - KERNEL_CUDA_ERROR).message;
  }
}
