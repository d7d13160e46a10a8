import { CString, type FFIFunction, type Pointer, ptr } from 'bun:ffi';
import type { NativeFunction } from '../cpu-library.ts';
import type { DevicePtr } from '../device.ts';
import type { FloatDType } from '../dtype.ts';
import { openLibrary } from './open-library.ts';

/** Constants of nccl.h, under their names there. */
export const NCCL_CONSTANTS = {
  NCCL_UNIQUE_ID_BYTES: 128,
  ncclSuccess: 0,
  ncclSum: 0,
  ncclInt32: 2,
  ncclFloat16: 6,
  ncclFloat32: 7,
  ncclBfloat16: 9,
} as const;

const ID_WORDS = NCCL_CONSTANTS.NCCL_UNIQUE_ID_BYTES / 8;
/** Integer registers that are left where a call has three arguments before its struct (System V ABI, x86-64): the struct lies on the stack behind them. */
const UNUSED_REGISTERS = 3;

/** ncclCommInitRank takes its 128 bytes by value: on x86-64 they lie on the stack, on arm64 their address is passed. */
const INIT_RANK: FFIFunction =
  process.arch === 'x64'
    ? { args: ['ptr', 'i32', 'i32', ...new Array<'u64'>(UNUSED_REGISTERS + ID_WORDS).fill('u64')], returns: 'i32' }
    : { args: ['ptr', 'i32', 'ptr', 'i32'], returns: 'i32' };

/** The functions of libnccl whose arguments are all numbers and addresses, as nccl.h declares them. Each gives a ncclResult_t unless it says otherwise. */
export const NCCL_SYMBOLS = {
  ncclGetVersion: { args: ['ptr'], returns: 'i32' },
  ncclGetUniqueId: { args: ['ptr'], returns: 'i32' },
  ncclGetErrorString: { args: ['i32'], returns: 'ptr' },
  ncclCommDestroy: { args: ['ptr'], returns: 'i32' },
  ncclGroupStart: { args: [], returns: 'i32' },
  ncclGroupEnd: { args: [], returns: 'i32' },
  ncclAllReduce: { args: ['ptr', 'ptr', 'u64', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  ncclAllGather: { args: ['ptr', 'ptr', 'u64', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  ncclReduceScatter: { args: ['ptr', 'ptr', 'u64', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  ncclSend: { args: ['ptr', 'u64', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  ncclRecv: { args: ['ptr', 'u64', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
} as const satisfies Record<string, FFIFunction>;

const DATA_TYPES: Record<FloatDType | 'int32', number> = {
  float32: NCCL_CONSTANTS.ncclFloat32,
  float16: NCCL_CONSTANTS.ncclFloat16,
  bfloat16: NCCL_CONSTANTS.ncclBfloat16,
  int32: NCCL_CONSTANTS.ncclInt32,
};
/** The first release for CUDA 12 that has all data types used here; versions are major * 10000 + minor * 100 + patch. */
const MIN_VERSION = 21_800;

type Functions = Record<keyof typeof NCCL_SYMBOLS, NativeFunction>;
type InitRank = (...args: (number | bigint)[]) => number;

/** libnccl, with codes as exceptions. */
export class Nccl {
  readonly #functions: Functions;
  readonly #initRank: InitRank;
  /** major * 10000 + minor * 100 + patch. */
  readonly version: number;

  /** Throws an Error of one sentence where the library can't be had or is too old. */
  constructor(candidates: readonly string[]) {
    const functions = openLibrary('libnccl', candidates, { ...NCCL_SYMBOLS, ncclCommInitRank: INIT_RANK });
    this.#functions = functions;
    this.#initRank = functions.ncclCommInitRank as InitRank;
    const version = new Int32Array(1);
    this.check('ncclGetVersion', this.#functions.ncclGetVersion(ptr(version)));
    this.version = version[0]!;
    if (this.version < MIN_VERSION) {
      throw new Error(`libnccl is of version ${this.version}, at least ${MIN_VERSION} is needed`);
    }
  }

  /** What the ranks of one communicator have in common: made by one of them, given to all. 128 bytes. */
  uniqueId(): Uint8Array {
    const id = new Uint8Array(NCCL_CONSTANTS.NCCL_UNIQUE_ID_BYTES);
    this.check('ncclGetUniqueId', this.#functions.ncclGetUniqueId(ptr(id)));
    return id;
  }

  /** Joins `rank` of `numRanks`, for the thread's current device and its stream. Blocks until all ranks have called it, each in its thread. */
  communicator(id: Uint8Array, rank: number, numRanks: number, stream: number): NcclCommunicator {
    if (id.length !== NCCL_CONSTANTS.NCCL_UNIQUE_ID_BYTES) {
      throw new RangeError(`a unique id has ${NCCL_CONSTANTS.NCCL_UNIQUE_ID_BYTES} bytes, not ${id.length}`);
    }
    const handle = new BigUint64Array(1);
    const words = new BigUint64Array(id.slice().buffer);
    const code =
      process.arch === 'x64'
        ? this.#initRank(ptr(handle), numRanks, rank, ...new Array<number>(UNUSED_REGISTERS).fill(0), ...words)
        : this.#initRank(ptr(handle), numRanks, ptr(words), rank);
    this.check('ncclCommInitRank', code);
    return new NcclCommunicator(this, this.#functions, Number(handle[0]), stream);
  }

  /** Calls within `enqueue` go out together: a send and a receive between two ranks must, or each would wait for the other. */
  group(enqueue: () => void): void {
    this.check('ncclGroupStart', this.#functions.ncclGroupStart());
    try {
      enqueue();
    } catch (error) {
      // It gives the code of the call that failed again.
      this.#functions.ncclGroupEnd();
      throw error;
    }
    this.check('ncclGroupEnd', this.#functions.ncclGroupEnd());
  }

  check(call: string, code: number): void {
    if (code === NCCL_CONSTANTS.ncclSuccess) return;
    const text = new CString(this.#functions.ncclGetErrorString(code) as Pointer);
    throw new Error(`${call}: ${text} (${code})`);
  }
}

/** One rank's end. Operations are enqueued on its stream; counts are elements, of what a rank sends (all-gather) or receives (reduce-scatter). */
export class NcclCommunicator {
  constructor(
    private readonly nccl: Nccl,
    private readonly functions: Functions,
    private readonly handle: number,
    private readonly stream: number,
  ) {}

  /** receive = the sum of all ranks' send; the two may be one. */
  allReduce(send: DevicePtr, receive: DevicePtr, count: number, dtype: FloatDType): void {
    const { ncclSum } = NCCL_CONSTANTS;
    const { ncclAllReduce } = this.functions;
    const code = ncclAllReduce(send, receive, count, DATA_TYPES[dtype], ncclSum, this.handle, this.stream);
    this.nccl.check('ncclAllReduce', code);
  }

  /** receive [numRanks * count] = what the ranks send, one after another. */
  allGather(send: DevicePtr, receive: DevicePtr, count: number, dtype: FloatDType | 'int32'): void {
    const code = this.functions.ncclAllGather(send, receive, count, DATA_TYPES[dtype], this.handle, this.stream);
    this.nccl.check('ncclAllGather', code);
  }

  /** receive [count] = this rank's part of the sum of all ranks' send [numRanks * count]. */
  reduceScatter(send: DevicePtr, receive: DevicePtr, count: number, dtype: FloatDType): void {
    const { ncclSum } = NCCL_CONSTANTS;
    const { ncclReduceScatter } = this.functions;
    const code = ncclReduceScatter(send, receive, count, DATA_TYPES[dtype], ncclSum, this.handle, this.stream);
    this.nccl.check('ncclReduceScatter', code);
  }

  send(from: DevicePtr, count: number, dtype: FloatDType | 'int32', rank: number): void {
    const code = this.functions.ncclSend(from, count, DATA_TYPES[dtype], rank, this.handle, this.stream);
    this.nccl.check('ncclSend', code);
  }

  receive(to: DevicePtr, count: number, dtype: FloatDType | 'int32', rank: number): void {
    const code = this.functions.ncclRecv(to, count, DATA_TYPES[dtype], rank, this.handle, this.stream);
    this.nccl.check('ncclRecv', code);
  }

  close(): void {
    this.nccl.check('ncclCommDestroy', this.functions.ncclCommDestroy(this.handle));
  }
}
