import { CString, type FFIFunction, type Pointer, ptr } from 'bun:ffi';
import type { NativeFunction } from '../cpu-library.ts';
import { NoCudaDeviceError } from './no-cuda-device.ts';
import { openLibrary } from './open-library.ts';

/** The functions of libcudart that are called, as cuda_runtime_api.h declares them. Each gives a cudaError_t unless it says otherwise. */
export const CUDART_SYMBOLS = {
  cudaRuntimeGetVersion: { args: ['ptr'], returns: 'i32' },
  cudaGetDeviceCount: { args: ['ptr'], returns: 'i32' },
  cudaSetDevice: { args: ['i32'], returns: 'i32' },
  cudaDeviceGetAttribute: { args: ['ptr', 'i32', 'i32'], returns: 'i32' },
  cudaGetErrorName: { args: ['i32'], returns: 'ptr' },
  cudaGetErrorString: { args: ['i32'], returns: 'ptr' },
  cudaGetLastError: { args: [], returns: 'i32' },
  cudaMemGetInfo: { args: ['ptr', 'ptr'], returns: 'i32' },
  cudaMalloc: { args: ['ptr', 'u64'], returns: 'i32' },
  cudaFree: { args: ['ptr'], returns: 'i32' },
  cudaHostAlloc: { args: ['ptr', 'u64', 'u32'], returns: 'i32' },
  cudaFreeHost: { args: ['ptr'], returns: 'i32' },
  cudaMemcpyAsync: { args: ['ptr', 'ptr', 'u64', 'i32', 'ptr'], returns: 'i32' },
  cudaMemsetAsync: { args: ['ptr', 'i32', 'u64', 'ptr'], returns: 'i32' },
  cudaStreamCreateWithFlags: { args: ['ptr', 'u32'], returns: 'i32' },
  cudaStreamDestroy: { args: ['ptr'], returns: 'i32' },
  cudaStreamSynchronize: { args: ['ptr'], returns: 'i32' },
  cudaEventCreateWithFlags: { args: ['ptr', 'u32'], returns: 'i32' },
  cudaEventDestroy: { args: ['ptr'], returns: 'i32' },
  cudaEventRecord: { args: ['ptr', 'ptr'], returns: 'i32' },
  cudaEventQuery: { args: ['ptr'], returns: 'i32' },
  cudaEventSynchronize: { args: ['ptr'], returns: 'i32' },
  cudaStreamBeginCapture: { args: ['ptr', 'i32'], returns: 'i32' },
  cudaStreamEndCapture: { args: ['ptr', 'ptr'], returns: 'i32' },
  cudaGraphInstantiate: { args: ['ptr', 'ptr', 'u64'], returns: 'i32' },
  cudaGraphLaunch: { args: ['ptr', 'ptr'], returns: 'i32' },
  cudaGraphDestroy: { args: ['ptr'], returns: 'i32' },
  cudaGraphExecDestroy: { args: ['ptr'], returns: 'i32' },
  cudaGraphExecUpdate: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  cudaDeviceCanAccessPeer: { args: ['ptr', 'i32', 'i32'], returns: 'i32' },
  cudaDeviceEnablePeerAccess: { args: ['i32', 'u32'], returns: 'i32' },
  cudaMemcpyPeerAsync: { args: ['ptr', 'i32', 'ptr', 'i32', 'u64', 'ptr'], returns: 'i32' },
} as const satisfies Record<string, FFIFunction>;

/** Constants of driver_types.h and cuda_runtime_api.h, under their names there. */
export const CUDART_CONSTANTS = {
  cudaErrorNotReady: 600,
  cudaErrorPeerAccessAlreadyEnabled: 704,
  cudaErrorGraphExecUpdateFailure: 910,
  cudaMemcpyHostToDevice: 1,
  cudaMemcpyDeviceToHost: 2,
  cudaStreamNonBlocking: 1,
  cudaEventDisableTiming: 2,
  cudaStreamCaptureModeThreadLocal: 1,
  cudaDevAttrMultiProcessorCount: 16,
  cudaDevAttrComputeCapabilityMajor: 75,
  cudaDevAttrComputeCapabilityMinor: 76,
} as const;

/** Of cudaGraphExecUpdateResultInfo, which nothing is read of. */
export const EXEC_UPDATE_RESULT_BYTES = 24;

/** Kernels need bfloat16 tensor cores and cp.async. */
const MIN_COMPUTE_CAPABILITY = 8;
const MIN_RUNTIME_VERSION = 12_000;

/** A call of the CUDA runtime that failed. After most codes the device does nothing any more. */
export class CudaError extends Error {
  constructor(
    readonly call: string,
    readonly code: number,
    readonly errorName: string,
    text: string,
  ) {
    super(`${call}: ${errorName} (${code}), ${text}`);
    this.name = 'CudaError';
  }
}

/** What a thread has to know of its device. */
export interface SelectedDevice {
  numMultiprocessors: number;
  computeCapability: string;
}

type Functions = Record<keyof typeof CUDART_SYMBOLS, NativeFunction>;

/** libcudart, with codes as exceptions and results as return values. The current device is per thread. */
export class CudaRuntime {
  readonly functions: Functions;
  /** Where calls put what they return beside the code. */
  readonly #words = new BigUint64Array(2);
  readonly #first = ptr(this.#words);
  readonly #second = ptr(this.#words, 8);
  readonly #updateResult = new Uint8Array(EXEC_UPDATE_RESULT_BYTES);

  /** Throws a NoCudaDeviceError where library, version or device are missing. */
  constructor(candidates: readonly string[]) {
    this.functions = openLibrary('libcudart', candidates, CUDART_SYMBOLS);
    const version = this.#i32('cudaRuntimeGetVersion', this.functions.cudaRuntimeGetVersion(this.#first));
    if (version < MIN_RUNTIME_VERSION) {
      throw new NoCudaDeviceError(`libcudart is of version ${version}, at least ${MIN_RUNTIME_VERSION} is needed`);
    }
  }

  /** At least 1. Throws a NoCudaDeviceError. */
  deviceCount(): number {
    const code = this.functions.cudaGetDeviceCount(this.#first);
    const count = code === 0 ? this.#i32('cudaGetDeviceCount', code) : 0;
    if (count === 0) {
      this.functions.cudaGetLastError();
      throw new NoCudaDeviceError(
        code === 0 ? 'the driver knows none' : this.error('cudaGetDeviceCount', code).message,
      );
    }
    return count;
  }

  /** Makes a device this thread's, and says what it is. Throws a NoCudaDeviceError. */
  selectDevice(device: number): SelectedDevice {
    const count = this.deviceCount();
    if (device >= count) throw new NoCudaDeviceError(`of number ${device}; there are ${count}, from 0`);
    this.check('cudaSetDevice', this.functions.cudaSetDevice(device));
    const [major, minor] = [this.#attribute('Major', device), this.#attribute('Minor', device)];
    if (major < MIN_COMPUTE_CAPABILITY) {
      throw new NoCudaDeviceError(`device ${device} has compute capability ${major}.${minor}, 8.0 is needed`);
    }
    const numMultiprocessors = this.#attributeValue(CUDART_CONSTANTS.cudaDevAttrMultiProcessorCount, device);
    return { numMultiprocessors, computeCapability: `${major}${minor}` };
  }

  /** Throws the CudaError of a code that is not cudaSuccess. */
  check(call: string, code: number): void {
    if (code !== 0) throw this.error(call, code);
  }

  error(call: string, code: number): CudaError {
    const text = (address: number) => String(new CString(address as Pointer));
    const name = text(this.functions.cudaGetErrorName(code));
    return new CudaError(call, code, name, text(this.functions.cudaGetErrorString(code)));
  }

  memoryInfo(): { freeBytes: number; totalBytes: number } {
    this.check('cudaMemGetInfo', this.functions.cudaMemGetInfo(this.#first, this.#second));
    return { freeBytes: Number(this.#words[0]), totalBytes: Number(this.#words[1]) };
  }

  malloc(bytes: number): number {
    return this.#pointer('cudaMalloc', this.functions.cudaMalloc(this.#first, bytes));
  }

  hostAlloc(bytes: number): number {
    return this.#pointer('cudaHostAlloc', this.functions.cudaHostAlloc(this.#first, bytes, 0));
  }

  createStream(): number {
    const { cudaStreamNonBlocking } = CUDART_CONSTANTS;
    return this.#pointer(
      'cudaStreamCreateWithFlags',
      this.functions.cudaStreamCreateWithFlags(this.#first, cudaStreamNonBlocking),
    );
  }

  createEvent(): number {
    const { cudaEventDisableTiming } = CUDART_CONSTANTS;
    return this.#pointer(
      'cudaEventCreateWithFlags',
      this.functions.cudaEventCreateWithFlags(this.#first, cudaEventDisableTiming),
    );
  }

  /**
   * Captures what `enqueue` enqueues on the stream as a graph, for as long as `use` runs; nothing of it is executed. Throws what `enqueue` throws, or a
   * CudaError.
   */
  captureGraph<Result>(stream: number, enqueue: () => void, use: (graph: number) => Result): Result {
    const { cudaStreamBeginCapture, cudaStreamEndCapture, cudaGraphDestroy } = this.functions;
    // Other threads go on allocating memory meanwhile.
    const { cudaStreamCaptureModeThreadLocal } = CUDART_CONSTANTS;
    this.check('cudaStreamBeginCapture', cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      enqueue();
    } catch (error) {
      // The stream must be left as it was, whatever went wrong.
      if (cudaStreamEndCapture(stream, this.#first) === 0) cudaGraphDestroy(Number(this.#words[0]));
      this.functions.cudaGetLastError();
      throw error;
    }
    const graph = this.#pointer('cudaStreamEndCapture', cudaStreamEndCapture(stream, this.#first));
    try {
      return use(graph);
    } finally {
      cudaGraphDestroy(graph);
    }
  }

  /** Makes a graph executable. */
  instantiateGraph(graph: number): number {
    return this.#pointer('cudaGraphInstantiate', this.functions.cudaGraphInstantiate(this.#first, graph, 0));
  }

  /** Gives an executable graph the parameters of another; false where their nodes differ in number or kind. Launches that wait keep what they had. */
  updateGraph(executable: number, graph: number): boolean {
    const code = this.functions.cudaGraphExecUpdate(executable, graph, ptr(this.#updateResult));
    if (code !== CUDART_CONSTANTS.cudaErrorGraphExecUpdateFailure) this.check('cudaGraphExecUpdate', code);
    else this.functions.cudaGetLastError();
    return code === 0;
  }

  /** Whether one device can reach the other's memory directly. */
  canAccessPeer(device: number, peer: number): boolean {
    const code = this.functions.cudaDeviceCanAccessPeer(this.#first, device, peer);
    return this.#i32('cudaDeviceCanAccessPeer', code) === 1;
  }

  /** Lets this thread's device reach the peer's memory, which `canAccessPeer` must have said it can; again does no harm. */
  enablePeerAccess(peer: number): void {
    const code = this.functions.cudaDeviceEnablePeerAccess(peer, 0);
    if (code !== CUDART_CONSTANTS.cudaErrorPeerAccessAlreadyEnabled) this.check('cudaDeviceEnablePeerAccess', code);
    else this.functions.cudaGetLastError();
  }

  /** Enqueues a copy between two devices' memories, directly where access is enabled. */
  copyPeer(
    [to, toDevice]: readonly [ptr: number, device: number],
    [from, fromDevice]: readonly [ptr: number, device: number],
    bytes: number,
    stream: number,
  ): void {
    const code = this.functions.cudaMemcpyPeerAsync(to, toDevice, from, fromDevice, bytes, stream);
    this.check('cudaMemcpyPeerAsync', code);
  }

  #attribute(part: 'Major' | 'Minor', device: number): number {
    return this.#attributeValue(CUDART_CONSTANTS[`cudaDevAttrComputeCapability${part}`], device);
  }

  #attributeValue(attribute: number, device: number): number {
    const code = this.functions.cudaDeviceGetAttribute(this.#first, attribute, device);
    return this.#i32('cudaDeviceGetAttribute', code);
  }

  #i32(call: string, code: number): number {
    this.check(call, code);
    return Number(BigInt.asIntN(32, this.#words[0]!));
  }

  #pointer(call: string, code: number): number {
    this.check(call, code);
    return Number(this.#words[0]);
  }
}
